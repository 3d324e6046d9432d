"""The figure of the capacity gap, drawn by the command from a store's records."""

import re
from pathlib import Path

import pytest
import yaml

from harness.planning import plan_sweep
from harness.reporting.comparison import Comparison, Contents, Row, Spread
from harness.reporting.figures import points
from harness.spec import models
from harness.store import records
from tests.commands import command
from tests.unit.test_reporting import SWEEP, row

TEACHERS = ("digits_net_w16", "digits_net_w8", "digits_net_w32")  # not in the order of their sizes
GROWING = {**SWEEP, "pairs": [{"teacher": t, "student": "digits_net_w4"} for t in TEACHERS]}


def line(teacher: str, method: str, mean: float | None, student: str = "digits_net_w4") -> Row:
    spread = None if mean is None else Spread(mean, 0.5, 2)
    return Row(teacher, student, method, spread, None, None, None, 90.0, 60.0, 1.0, (), (1, 1), 0, 0, ("r",))


def comparison(*rows: Row) -> Comparison:
    return Comparison(Contents("n", "", "digits", (1,), ()), rows, 1, "test", 1)


def test_points_go_from_the_smallest_teacher_to_the_largest() -> None:
    rows = [line(t, "kd", 60.0 + i) for i, t in enumerate(TEACHERS)] + [line(TEACHERS[0], "rekd", 70.0)]
    rows += [line(TEACHERS[1], "rekd", None), line("timm:resnet18", "kd", 1.0), line(TEACHERS[0], "student", 50.0)]
    rows += [line(TEACHERS[0], "kd", 2.0, student="digits_net_w8")]
    w16, w8, w32 = (models.facts(t).params for t in TEACHERS)
    assert points(comparison(*rows), "digits_net_w4") == {
        "kd": [(w8, 61.0, 0.5), (w16, 60.0, 0.5), (w32, 62.0, 0.5)],
        "rekd": [(w16, 70.0, 0.5)],
    }
    assert points(comparison(*rows), "digits_net_w8") == {}, "one teacher is no line"


def test_drawn_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(GROWING))
    planned = plan_sweep(Path("small.yaml"), Path("results"))
    for i, run_id in enumerate(planned.plan.runs):
        records.write(planned.store, row(run_id, 60.0 + i, 61.0 + i))
    done = command("report", "small.yaml", "--figures", "figures")
    svg, pdf = (
        Path("figures/small/capacity_gap_digits_net_w4.svg"),
        Path("figures/small/capacity_gap_digits_net_w4.pdf"),
    )
    assert done.out.split() == [str(svg), str(pdf)]
    text = svg.read_text()
    for label in ("kd", "fitnets", "digits_net_w4 alone", *TEACHERS):
        assert re.search(rf">{label}</text>", text), label
    first = svg.read_bytes(), pdf.read_bytes()
    command("report", "small.yaml", "--figures", "figures")
    assert (svg.read_bytes(), pdf.read_bytes()) == first, "the same records give the same bytes"


def test_what_cannot_be_drawn_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SWEEP))
    assert "needs a student with records under two teachers" in command("report", "small.yaml", "--figures", "f").error
    assert not Path("f").exists()

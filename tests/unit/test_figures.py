"""The figures, drawn by the command from a store's records."""

import io
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from harness.planning.plan import plan_sweep
from harness.reporting.comparison import Comparison, Contents, Row, Spread, compare
from harness.reporting.curves import Curve, mean_and_std
from harness.reporting.figures import gains, pareto, style, training
from harness.reporting.figures.capacity_gap import points
from harness.reporting.figures.pareto import front
from harness.spec import models
from harness.spec.sweep_plan import Cell
from harness.store import records
from tests.support.cli import run_command
from tests.support.comparisons import SWEEP, row, table
from tests.support.sciences import make_science

pytestmark = pytest.mark.slow

TEACHERS = ("digits_net_w16", "digits_net_w8", "digits_net_w32")  # not in the order of their sizes
GROWING = {**SWEEP, "pairs": [{"teacher": t, "student": "digits_net_w4"} for t in TEACHERS[:2]]}


def line(teacher: str, method: str, mean: float | None, student: str = "digits_net_w4") -> Row:
    spread = None if mean is None else Spread(mean, 0.5, 2)
    return Row(teacher, student, method, spread, None, None, None, 90.0, 60.0, 1.0, (), (1, 1), 0, 0, ("r",))


def comparison(*rows: Row) -> Comparison:
    return Comparison(Contents("n", "", "digits", (1,), ()), rows, 1, "test", 1)


def compared_pairs(tops: dict[tuple[str, str, str], tuple[float, ...]]) -> Comparison:
    ids = {line: [f"{'-'.join(line)}-{seed}" for seed in range(len(own))] for line, own in tops.items()}
    cells = [Cell(*line, seed, run_id, None) for line, own in ids.items() for seed, run_id in enumerate(own)]
    science = make_science("s", epochs=20).text
    rows = [row(r, v, v, science=science) for line, own in ids.items() for r, v in zip(own, tops[line], strict=True)]
    return compare(Contents("n", "", "digits", (20,), tuple(cells)), table(rows))


def test_points_go_from_the_smallest_teacher_to_the_largest() -> None:
    rows = [line(t, "kd", 60.0 + i) for i, t in enumerate(TEACHERS)] + [line(TEACHERS[0], "rekd", 70.0)]
    rows += [line(TEACHERS[1], "rekd", None), line("timm:resnet18", "kd", 1.0), line(TEACHERS[0], "student", 50.0)]
    rows += [line(TEACHERS[0], "kd", 2.0, student="digits_net_w8")]
    w16, w8, w32 = (models.model_facts(t).params for t in TEACHERS)
    half = pytest.approx(12.7062 * 0.5 / 2**0.5, rel=1e-4)  # of the 95 % interval: t of one degree of freedom
    assert points(comparison(*rows), "digits_net_w4") == {
        "kd": [(w8, 61.0, half), (w16, 60.0, half), (w32, 62.0, half)],
        "rekd": [(w16, 70.0, half)],
    }
    assert points(comparison(*rows), "digits_net_w8") == {}, "one teacher is no line"


def test_drawn_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(GROWING))
    planned = plan_sweep(Path("small.yaml"), Path("results"))
    for i, (run_id, run) in enumerate(planned.plan.runs.items()):
        terms = [*run.science.method.weights, "total", *(["sharpness"] if run.science.method.use == "kd" else [])]
        names = [*(f"train_{t}" for t in terms), "test_top1"]
        curves = [{"epoch": e, "name": n, "value": e + i / 9 + k} for k, n in enumerate(names) for e in (1, 2, 3)]
        known = {"science": run.science.text, "curves": curves}
        records.write_record(planned.store, row(run_id, 60.0 + i, 61.0 + i, **known))
    result = run_command("report", "small.yaml", "--out", "figures", "--figures", "figures")
    drawn = {path for line in result.out.split() if (path := Path(line)).suffix in (".svg", ".pdf", ".png")}
    expected = ["gap", "capacity_gap_digits_net_w4"]
    for teacher in TEACHERS[:2]:
        pair = f"{teacher}_digits_net_w4"
        expected += [f"{kind}_{pair}" for kind in ("pareto", "curves", "losses")]
        expected.append(f"diagnostics_kd_{pair}")
    assert drawn == {Path(f"figures/small/{name}.{suffix}") for name in expected for suffix in ("svg", "pdf", "png")}

    def labels(name: str) -> set[str]:
        return set(re.findall(r">([^<>\n]+)</text>", Path(f"figures/small/{name}.svg").read_text()))

    assert {"kd", "fitnets", "digits_net_w4 alone", *TEACHERS[:2]} <= labels("capacity_gap_digits_net_w4")
    pair = f"{TEACHERS[0]}_digits_net_w4"
    assert {"student", "kd", "fitnets", "seconds of training per run"} <= labels(f"pareto_{pair}")
    assert {"student", "kd", "fitnets", "test top-1 (%)", "cross-entropy in training", "epoch"} <= labels(
        f"curves_{pair}"
    )
    assert {"ce", "kd", "hint", "total"} <= labels(f"losses_{pair}") and "sharpness" not in labels(f"losses_{pair}")
    assert "sharpness" in labels(f"diagnostics_kd_{pair}") and "loss term × its weight" in labels(f"losses_{pair}")
    of_pair = f"digits: {TEACHERS[0]} &gt; digits_net_w4"
    assert all(of_pair in labels(f"{kind}_{pair}") for kind in ("pareto", "curves", "losses", "diagnostics_kd"))
    assert "digits: digits_net_w4" in labels("capacity_gap_digits_net_w4")
    result = run_command("verify", "--tables", "figures")
    assert result.code == 0, f"the same records give the same bytes: {result}"


def test_long_and_foreign_names_stay_in_the_figure() -> None:
    """They are broken into lines. Nothing is at a figure's edge, and no letter without a sign is a warning."""
    methods = ("student", "\u77e5\u8b58", "_my_package.methods:Mine(alpha=0.5, betas=[1, 2, 3], temperature=4.0)")
    pairs = [(f"a_teacher_with_a_long_name_{i}", "a_student_with_a_name_as_long_as_the_axis") for i in range(4)]
    for names in (pairs[:1], pairs):
        shown = compared_pairs({(*pair, m): (60.0, 60.0 + i) for pair in names for i, m in enumerate(methods)})
        for drawing in (*gains.drawings(shown), *pareto.drawings(shown)):
            with warnings.catch_warnings(action="error"):
                image = np.asarray(Image.open(io.BytesIO(style.render(drawing, "png")["png"])).convert("L"))
            assert image[:, [0, -1]].min() == image[[0, -1]].min() == 255, drawing.name


def test_curves_without_two_finite_points_are_not_drawn() -> None:
    shown = compared_pairs({("t", "s", m): (60.0, 61.0) for m in ("student", "kd")})
    epochs = np.arange(1, 4)
    for values, drawn in (([np.nan] * 3, []), ([2.0, np.inf, np.nan], []), ([1.0, 2.0, np.inf], ["curves_t_s"])):
        curves = {run: {"test_top1": Curve(epochs, np.array(values))} for row in shown.rows for run in row.run_ids}
        with warnings.catch_warnings(action="error"):
            assert [drawing.name for drawing in training.drawings(shown, curves)] == drawn


def test_verify_draws_the_figures_next_to_tables_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(GROWING))
    planned = plan_sweep(Path("small.yaml"), Path("results"))
    for i, (run_id, run) in enumerate(planned.plan.runs.items()):
        records.write_record(planned.store, row(run_id, 60.0 + i, 61.0 + i, science=run.science.text))
    assert run_command("report", "small.yaml", "--out", "paper", "--figures", "paper").code == 0
    path = Path("paper/small/capacity_gap_digits_net_w4.svg")
    path.write_text(path.read_text().replace("digits_net_w16", "digits_net_w61"))
    other = path.with_suffix(".pdf")
    other.unlink()
    result = run_command("verify", "--tables", "paper")
    assert result.code == 1 and result.out.count("DIFFERENT") == 2 and f"{path}: line " in result.out
    assert f"{other}: is missing" in result.out


def test_what_cannot_be_drawn_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SWEEP))
    assert "nothing to draw yet" in run_command("report", "small.yaml", "--figures", "f").error
    assert not Path("f").exists()


POINTS = st.lists(st.tuples(st.floats(0.1, 10), st.floats(0, 100)), min_size=1)


@given(POINTS)
def test_the_front_is_what_nothing_beats(given: list[tuple[float, float]]) -> None:
    def beaten(p: tuple[float, float]) -> bool:
        return any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in given)

    assert front(given) == sorted({p for p in given if not beaten(p)})


def test_bands_are_over_the_epochs_that_all_seeds_have() -> None:
    long = Curve(np.array([1, 2, 3, 4]), np.array([1.0, 2.0, 3.0, 4.0]))
    short = Curve(np.array([2, 4]), np.array([4.0, 4.0]))
    mean, std = mean_and_std([long, short])
    assert mean.epochs.tolist() == [2, 4] and mean.values.tolist() == [3.0, 4.0]
    assert std.tolist() == [pytest.approx(2**0.5), 0.0]
    assert mean_and_std([long])[1].tolist() == [0.0] * 4


def test_a_methods_own_terms_are_drawn_as_weighted() -> None:
    curve = Curve(np.array([1, 2]), np.array([1.0, 2.0]))
    names = ("train_ce", "train_kd", "train_entropy", "train_idle", "train_total", "test_top1")
    terms = training._terms([dict.fromkeys(names, curve)] * 2, {"ce": 0.1, "kd": 0.9, "idle": 0.0})
    drawn = {term: [list(c.values) for c in curves] for term, curves in terms.items()}
    assert drawn == {"ce": [[0.1, 0.2]] * 2, "kd": [[0.9, 1.8]] * 2, "total": [[1.0, 2.0]] * 2}


def test_a_method_looks_the_same_in_every_figure() -> None:
    rows = [line(TEACHERS[0], m, 60.0) for m in ("student", "kd", "rekd")] + [line(TEACHERS[1], "rekd", 61.0)]
    whole, part = comparison(*rows), comparison(*rows[2:])
    part = replace(
        part,
        contents=replace(part.contents, cells=tuple(Cell("t", "s", m, 0, m, None) for m in ("student", "kd", "rekd"))),
    )
    assert style.method_looks(whole)["rekd"] == style.method_looks(part)["rekd"] == style.look(2)


def test_many_methods_are_drawn_in_several_figures_that_fit_a_page() -> None:
    curve = Curve(np.array([1, 2]), np.array([1.0, 2.0]))
    panels = [training.Panel(f"m{i}", {"ce": [curve]}) for i in range(30)]
    drawn = list(training._drawing(("losses", "t", "s"), "", panels, "", {"ce": style.look(0)}))
    assert [d.name for d in drawn] == ["losses_t_s", "losses_t_s_2", "losses_t_s_3"]
    assert all(d.size[1] < 9 for d in drawn)


@pytest.mark.parametrize(("epochs", "every"), [(3, 1), (11, 1), (240, 40)])
def test_a_curve_has_about_six_markers_and_loss_terms_a_readable_scale(epochs: int, every: int) -> None:
    curve = Curve(np.arange(1, epochs + 1), np.geomspace(1, 100, epochs))
    figure = Figure()
    training._draw([training.Panel("kd", {"kd": [curve]}, log=True)], {"kd": style.look(0)}, 1, 1, figure)
    (axes,) = figure.axes
    assert axes.lines[0].get_markevery() == every
    assert {1, 2, 5, 10, 20, 50, 100} <= {round(tick, 6) for tick in axes.yaxis.get_major_locator().tick_values(1, 100)}


def test_every_method_looks_its_own_way() -> None:
    looks = [tuple(style.look(i).values()) for i in range(28)]
    assert len(set(looks)) == 28
    assert len({(line, marker) for _, line, marker in looks}) == 28, "without colours too"


def test_figures_fit_their_columns() -> None:
    """For names of any length a figure has the requested width and its legend fits."""
    names = [f"a_method_with_a_long_name_{i}" for i in range(22)]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for name in names:
            axes.plot([0, 1], label=name)

    svg = style.render(style.Drawing("n", "", (style.COLUMN, 2.0), draw), "svg")["svg"].decode()
    width, height = (float(x) for x in re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', svg).groups())  # type: ignore[union-attr]
    assert width == pytest.approx(style.COLUMN * 72) and height > 2.5 * 72
    at = [(float(x), float(y)) for x, y in re.findall(r' x="([\d.]+)" y="([\d.]+)"[^>]*>a_method', svg)]
    assert len(at) == 22 and max(y for _, y in at) <= height
    assert max(x for x, _ in at) + len(names[-1]) * 7 * 0.5 < width, "letters are about half as wide as high"


def test_a_matplotlibrc_in_the_current_folder_changes_no_figure() -> None:
    def draw(figure: Figure) -> None:
        figure.subplots().plot([1, 2])

    drawing = style.Drawing("n", "", (style.COLUMN, 2.0), draw)
    plain = style.render(drawing, "svg")
    with rc_context({"axes.facecolor": "black", "lines.linestyle": ":"}):  # as if it had been read
        assert style.render(drawing, "svg") == plain

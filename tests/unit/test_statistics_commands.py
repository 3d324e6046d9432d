"""Statistics through the commands, on a store with made-up records."""

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.planning.plan import plan_sweep
from harness.reporting.tables import formats
from harness.store import records
from tests.support.cli import process, run_command
from tests.support.comparisons import row

SWEEP: dict[str, Any] = {
    "name": "small",
    "dataset": "digits",
    "recipe": "digits_quick",
    "methods": {"student": {}, "kd": {}, "dkd": {}},
    "pairs": [{"teacher": t, "student": "digits_net_w4"} for t in ("digits_net_w8", "digits_net_w16")],
    "seeds": 3,
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def finish(sweep: dict[str, Any]) -> None:
    """Write the sweep and a made-up record for each of its runs."""
    Path("small.yaml").write_text(yaml.safe_dump(sweep))
    planned = plan_sweep(Path("small.yaml"), Path("results"))
    method = {c.run_id: c.method for c in planned.plan.cells}
    for run in planned.plan.runs.values():
        if not planned.store.record(run.run_id).exists():
            seed = run.science.seed
            top1 = 60.0 + 5 * len(method.get(run.run_id, "")) + math.sin(7 * seed + len(run.label)) / 3
            records.write_record(planned.store, row(run.run_id, top1, 99.0, science=run.science.text))


def test_report_takes_a_baseline_and_verify_rebuilds_it(home: Path) -> None:
    finish(SWEEP)
    result = run_command("report", "small.yaml", "--baseline", "kd", "--out", "paper")
    assert result.code == 0
    assert " vs kd " in Path("paper/small/table.md").read_text()
    assert run_command("verify", "--tables", "paper").code == 0
    error = run_command("report", "small.yaml", "--baseline", "kdd").error
    assert "small: --baseline: unknown method of this table 'kdd'; did you mean 'kd'?" in error
    assert "unknown method of this table 'kdd'" in run_command("sweep", "small.yaml", "--baseline", "kdd").error


def test_sweep_lists_tests_and_ranks_as_json(home: Path) -> None:
    finish(SWEEP)
    document = json.loads(run_command("sweep", "small.yaml", "--json", "--baseline", "kd", "--margin", "0.25").out)
    assert (document["baseline"], document["margin"]) == ("kd", 0.25)
    assert document["rows"][0]["tested"]["p"] <= document["rows"][0]["tested"]["p_holm"]
    assert document["rows"][0]["last_interval"]["low"] < document["rows"][0]["last"]["mean"]
    assert document["ranking"]["pairs"] == 2 and len(document["ranking"]["ranks"]) == 3


UNLIKE = {**SWEEP, "methods": {"student": {}, "kd": {}, "dkd": {"recipe": {"epochs": 5, "lr": 0.1}}}}


@pytest.mark.parametrize("args", [("report",), ("sweep",), ("sweep", "--plan")], ids=" ".join)
def test_different_protocols_are_refused_with_the_cause(home: Path, args: tuple[str, ...]) -> None:
    finish(UNLIKE)
    error = run_command(args[0], "small.yaml", *args[1:]).error
    assert "a column would mix numbers of different protocols" in error
    assert "digits_net_w8 > digits_net_w4, dkd: epochs 5, lr 0.1" in error and "--mix-protocols" in error


def test_mixed_protocols_are_marked_in_every_format(home: Path) -> None:
    finish(UNLIKE)
    assert run_command("sweep", "small.yaml", "--mix-protocols").code == 0
    for form in formats.FORMATS:
        text = run_command("report", "small.yaml", "--mix-protocols", "--format", form).out
        if form == "csv":
            changes = {r["method"]: r["unlike_protocol"] for r in csv.DictReader(io.StringIO(text))}
            assert changes == {"student": "", "kd": "", "dkd": "epochs 5, lr 0.1"}
        else:
            assert "dkd (a)" in text and "kd (a)" not in text.replace("dkd (a)", "")
            assert "not comparable with the rest: (a) epochs 5, lr 0.1." in text
            assert "another recipe" not in text
    assert "different protocols" in run_command("report").error, "a stored table is refused as well"
    assert run_command("report", "--mix-protocols").code == 0
    assert run_command("verify").code == 0


def test_a_pairs_epochs_are_guarded_and_a_learning_rate_is_its_own(home: Path) -> None:
    pairs = [SWEEP["pairs"][0], {**SWEEP["pairs"][1], "recipe": {"lr": 0.01}}]
    finish({**SWEEP, "pairs": pairs})
    result = run_command("report", "small.yaml")
    assert result.code == 0 and "digits_net_w16 > digits_net_w4: lr 0.01" in result.out
    finish({**SWEEP, "pairs": [SWEEP["pairs"][0], {**SWEEP["pairs"][1], "recipe": {"epochs": 4}}]})
    assert "digits_net_w16 > digits_net_w4, kd: epochs 4" in run_command("report", "small.yaml").error


def test_different_pairs_of_one_name_are_always_refused(home: Path) -> None:
    pairs = [SWEEP["pairs"][0], {**SWEEP["pairs"][0], "recipe": {"lr": 0.01}}]
    Path("small.yaml").write_text(yaml.safe_dump({**SWEEP, "pairs": pairs}))
    for args in (("sweep", "small.yaml", "--plan"), ("report", "small.yaml", "--mix-protocols")):
        error = run_command(*args).error
        assert "the pair digits_net_w8 > digits_net_w4 is listed twice, with different teachers or settings" in error


def added(*seeds: int, method: str = "kd", run_id: str | None = None) -> None:
    """Add seeds to the first pair as ``--until-decided`` would."""
    planned = plan_sweep(Path("small.yaml"), Path("results"))
    cell = next(c for c in planned.plan.cells if c.method == method)
    science = planned.plan.runs[cell.run_id].science
    cells = [{**cell.__dict__, "seed": s, "run_id": run_id or science.with_seed(s).run_id} for s in seeds]
    path = planned.store.added_seeds("small")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(cells))


def test_added_seeds_are_ordinary_runs_in_every_command(home: Path) -> None:
    finish(SWEEP)
    added(3, 4)
    listed = {**SWEEP, "seeds": 5}
    Path("five.yaml").write_text(yaml.safe_dump({**listed, "name": "five"}))
    five = {c.run_id for c in plan_sweep(Path("five.yaml"), Path("results")).plan.cells if c.method == "kd"}
    plan = plan_sweep(Path("small.yaml"), Path("results")).plan
    first = [c for c in plan.cells if c.method == "kd" and c.teacher == "digits_net_w8"]
    assert [c.seed for c in first] == [0, 1, 2, 3, 4] and {c.run_id for c in first} <= five
    assert sum(c.seed > 2 for c in plan.cells) == 2
    finish(SWEEP)
    result = run_command("report", "small.yaml")
    assert "Seeds that --until-decided added: digits_net_w8 > digits_net_w4, kd: seeds 3, 4." in result.out
    assert run_command("report", "small.yaml", "--only", "method=kd").out.count("seeds 3, 4") == 1
    assert run_command("sweep", "small.yaml").out.startswith(result.out)
    assert run_command("verify").code == 0


def test_added_seeds_of_another_science_are_left_out(home: Path) -> None:
    finish(SWEEP)
    added(3, run_id="0" * 16)
    assert all(c.seed < 3 for c in plan_sweep(Path("small.yaml"), Path("results")).plan.cells)


@pytest.mark.parametrize("text", ["", "{}{", "5", '[{"teacher": 1}]'])
def test_a_damaged_note_of_added_seeds_is_named(home: Path, text: str) -> None:
    finish(SWEEP)
    added(3)
    Path("results/added_seeds/small.json").write_text(text)
    assert "results/added_seeds/small.json: damaged" in run_command("report", "small.yaml").error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-seeds", "5"), "--max-seeds goes with --until-decided"),
        (("--until-decided", "--max-seeds", "3"), "small.yaml: lists 3 seeds: --max-seeds must be larger, found 3"),
        (("--until-decided", "--only", "seed=0"), "--until-decided adds seeds, and --only seed=... excludes them"),
        (("--until-decided", "--detach"), "give it without --detach"),
        (("--margin", "-1"), "--margin"),
    ],
)
def test_options_that_do_not_go_together(home: Path, options: tuple[str, ...], message: str) -> None:
    Path("small.yaml").write_text(yaml.safe_dump(SWEEP))
    assert message in run_command("sweep", "small.yaml", *options).error
    assert [p.name for p in Path().iterdir()] == ["small.yaml"]


def test_planning_and_status_import_no_scipy(home: Path) -> None:
    """A store without records is planned and shown without scipy."""
    Path("small.yaml").write_text(yaml.safe_dump(SWEEP))
    for args in (("sweep", "small.yaml", "--plan"), ("status", "small.yaml")):
        code = (
            "import sys; from harness.console import app; sys.argv = ['harness', *sys.argv[1:]]\n"
            "try: app.main()\nfinally: print([m for m in ('scipy', 'numpy', 'pyarrow') if m in sys.modules])"
        )
        result = process("-c", code, *args, cwd=home)
        assert result.out.splitlines()[-1] == "[]", result

"""Tables on a terminal, against committed texts at two widths. The numbers are made up.

``python -m tests.unit.test_terminal_tables`` writes the texts again: look at them before they are committed.
"""

import contextlib
import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text

from harness.planning.plan import Planned, plan_sweep
from harness.reporting.comparison import Contents
from harness.reporting.tables.fitted_table import FittedColumn, fitted_table
from harness.spec.sweep_plan import Cell
from harness.store import compaction, records
from tests.support import synthetic_coco
from tests.support.cli import REPO, CommandResult, run_command
from tests.support.comparisons import row

TEXTS = Path(__file__).parents[1] / "data" / "terminal_tables"
WIDTHS = (80, 120)
GAIN = {"student": 0.0, "kd": 2.0, "kd_t4": 2.0, "kd_t8": 2.5, "crd": -0.4, "fitnets": 0.3}
NOISE = (0.0, 0.8, -0.5)
SWEEP: dict[str, Any] = {
    "name": "small",
    "note": "made-up numbers",
    "dataset": "digits",
    "recipe": "digits_quick",
    "methods": {"student": {}, "kd": {}, "crd": {}, "fitnets": {}},
    "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4"}],
    "seeds": 3,
}


def make_store(sweep: dict[str, Any], without: Callable[[str, int], bool] = lambda method, seed: False) -> Planned:
    """Plan a sweep in the working directory and write made-up records, and none where ``without`` says so."""
    Path("small.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    planned = plan_sweep(Path("small.yaml"), Path("results"))
    cells = {cell.run_id: cell for cell in planned.plan.cells}
    for run in planned.plan.runs.values():
        cell = cells.get(run.run_id) or Cell("", "", "", 0, "", None)  # a teacher's run
        if without(cell.method, cell.seed) or planned.store.record(run.run_id).exists():
            continue
        size = 70.0 + 10 * (cell.teacher == "digits_net_w16")
        noise = NOISE[cell.seed] + (len(cell.method) + cell.seed) % 3 / 10
        score = None if cell.method == "rkd" else size + GAIN.get(cell.method, 1.0) + noise
        status = "done" if score else "diverged"
        records.write_record(planned.store, row(run.run_id, score, 99.0, status=status, science=run.science.text))
    return planned


def publish(planned: Planned, **changes: Any) -> None:
    """List the sweep among the store's tables."""
    contents = replace(Contents.of(planned.name, planned.plan), **changes)
    contents.write(planned.store.table_folder(planned.name))


def temperatures() -> None:
    """Three seeds, three lines of one method, two pairs."""
    methods = {"student": {}, "crd": {}, "fitnets": {}, "kd": {}}
    methods |= {f"kd_t{t}": {"use": "kd", "params": {"temperature": t}} for t in (4, 8)}
    methods["kd"] = {"params": {"temperature": 2}}
    pairs = [{"teacher": f"digits_net_w{width}", "student": "digits_net_w4"} for width in (8, 16)]
    publish(make_store({**SWEEP, "methods": methods, "pairs": pairs}))


def failures() -> None:
    """A cause that ended two methods, a diverged method, and one seed of a method to come."""
    methods = {**SWEEP["methods"], "dkd": {}, "rkd": {}, "at": {}}
    planned = make_store(
        {**SWEEP, "methods": methods}, lambda method, seed: method in ("dkd", "crd") or (method, seed) == ("at", 2)
    )
    for cell in planned.plan.cells:
        if cell.method in ("dkd", "crd"):
            cause = f"ValueError: run {cell.run_id}: the teacher's features have 3 channels, expected 7"
            planned.store.write_failure(cell.run_id, "code", cause, "", "log.out")
    publish(planned)


def one_seed() -> None:
    publish(make_store({**SWEEP, "seeds": 1}))


def detectors() -> None:
    synthetic_coco.prepare(Path())
    planned = synthetic_coco.plan(synthetic_coco.DETECTORS)
    synthetic_coco.record(planned)
    publish(planned)


def published() -> None:
    pairs = [{"teacher": "resnet56", "student": "resnet20"}]
    publish(make_store({**SWEEP, "dataset": "cifar100", "recipe": "crd_240ep", "pairs": pairs}))


def tuned() -> None:
    """Lines with settings that a tuning chose, of which two are of one method."""
    methods = {
        "student": {},
        "kd": {"params": {"temperature": 1.66}, "weights": {"kd": 4.77}},
        "rekd": {"params": {"tap": "stage1", "tau": 3.86}, "weights": {"select": 0.0116}},
        "rekd_mean": {"use": "rekd", "params": {"selection": "mean", "tap": "stage2"}, "weights": {"select": 0.0112}},
    }
    chosen = "Settings chosen by validation top-1 on 300 held-out training images: kd, rekd, rekd_mean."
    idle = "search and tune: only `python -m harness.tune` reads them"
    publish(make_store({**SWEEP, "methods": methods}), tuning=(chosen,), idle_settings=(idle,))


CASES = {case.__name__: case for case in (temperatures, failures, one_seed, detectors, published, tuned)}


def shown(width: int, *options: str) -> CommandResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        return run_command("report", "--format", "terminal", *options)


@pytest.mark.parametrize("case", CASES)
def test_terminal_tables_are_as_committed(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    CASES[case]()
    for width in WIDTHS:
        result = shown(width)
        assert result.code == 0, result
        assert result.out == (TEXTS / f"{case}-{width}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(TEXTS.glob("*.txt")), ids=lambda path: path.stem)
def test_no_line_of_a_committed_table_is_too_long(path: Path) -> None:
    width = int(path.stem.partition("-")[2])
    assert max(map(len, path.read_text(encoding="utf-8").splitlines())) <= width


def on_terminal(width: int, *args: str, **env: str) -> str:
    """Return what a command prints on a terminal of this width, stderr included."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    environment |= {"PYTHONPATH": str(REPO), "TERM": "xterm-256color", "PYTHONUTF8": "1", **env}
    with subprocess.Popen([sys.executable, "-m", *args], stdout=theirs, stderr=theirs, env=environment):
        os.close(theirs)
        parts = []
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 4096):
                parts.append(part)
    os.close(ours)
    return b"".join(parts).decode().replace("\r\n", "\n")


def test_commands_print_the_fitted_table_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failures()
    coloured = on_terminal(80, "harness.report")
    green, red = "\x1b[1;32m+2.00 ± 0.17 **", "\x1b[31mfailed: ValueError"
    assert green in coloured and red in coloured and "| kd" not in coloured
    one_seed()  # whose runs all have a record
    plain = on_terminal(120, "harness.sweep", "small.yaml", "--no-check", NO_COLOR="1")
    assert "+2.10" in plain and "| kd" not in plain and "[32m" not in plain
    assert "python -m harness.report small.yaml --settings\n" in plain


def test_states_and_mistakes_wrap_at_words_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failures()
    states = on_terminal(60, "harness.status", "small.yaml")
    mistake = on_terminal(60, "harness.sweep", "small.yaml", "--plan", "--set", "methods=[a_method_of_nobody]")
    assert max(len(line) for line in (states + mistake).splitlines()) <= 60
    assert "student / seed 0" in states and "unknown method" in " ".join(mistake.split())


def test_the_log_of_a_failure_wraps_at_words_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    planned = make_store(SWEEP, lambda method, seed: method == "kd")
    run_id = next(cell.run_id for cell in planned.plan.cells if cell.method == "kd")
    planned.store.write_failure(
        run_id, "code", "ValueError: no", "ValueError: " + "a shape of the features " * 5, "log"
    )
    shown = on_terminal(60, "harness.status", "small.yaml", "--failures")
    assert max(map(len, shown.splitlines())) <= 60 and " ".join(shown.split()).count("a shape of the features") == 5


def test_a_drawing_of_one_seed_speaks_of_no_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one_seed()
    assert "in points of top-1. o: one seed.\n" in run_command("report", "--draw").out


def test_a_line_without_a_record_has_no_result_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runs may be in training."""
    monkeypatch.chdir(tmp_path)
    publish(make_store(SWEEP, lambda method, seed: method == "crd"))
    assert "no result yet" in shown(80).out


def test_status_says_which_runs_diverged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    planned = make_store({**SWEEP, "methods": {"student": {}, "rkd": {}}})
    states = run_command("status", "small.yaml").out.splitlines()
    assert states[-1] == "7 done; 3 of those done diverged"
    assert [line.endswith("seed 1  diverged") for line in states if "/ seed 1" in line] == [False, True]
    rows = json.loads(run_command("status", "small.yaml", "--json").out)
    assert sum(row.get("diverged", False) for row in rows) == 3
    whole = {"stage": "main", "epoch": 20, "epochs": 20, "fraction": 1.0, "seconds_left": 0.0}
    for each in rows:
        planned.store.write_progress(each["run_id"], **whole, top1=None if each.get("diverged") else 50.0)
    monkeypatch.setattr(compaction, "MANY_FILES", 0)  # then no file of a record is read
    for path in planned.store.records.iterdir():
        path.write_bytes(b"")
    assert json.loads(run_command("status", "small.yaml", "--json").out) == rows


def test_a_run_of_two_pairs_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pairs = [{"teacher": f"digits_net_w{width}", "student": "digits_net_w4"} for width in (8, 16)]
    planned = make_store(
        {**SWEEP, "methods": {"student": {}, "kd": {}, "rkd": {}}, "pairs": pairs}, lambda method, seed: seed == 2
    )
    publish(planned)
    shown = run_command("report", "--format", "md").out
    assert "Without a record: 5 of 15 runs: student (1 of 3), " in shown
    assert "Diverged, and in no mean: 4 of 15 runs: rkd (2 of 3)." in shown


def test_who_stops_watching_is_told_that_the_jobs_continue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    make_store(SWEEP)
    monkeypatch.setattr("harness.planning.watch.watch", interrupted)
    result = run_command("status", "small.yaml", "--watch")
    assert (result.code, result.err) == (130, "stopped watching; the jobs continue\n")


def test_a_watched_sweep_ends_with_the_command_of_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_store(SWEEP)
    assert run_command("status", "small.yaml", "--watch").err.endswith("table: python -m harness.report small.yaml\n")
    result = run_command("status", "small.yaml", "--watch", "--set", "seeds=2", "--only", "method=kd,student")
    assert result.err.endswith("harness.report small.yaml --set seeds=2 --only method=kd,student\n")


def test_a_pipe_gets_markdown_and_the_causes_of_failures_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failures()
    result = run_command("report")
    assert result.out.startswith("## small\n\n| teacher > student") and "failed: " not in result.out
    assert result.err.count("failed: ValueError: run ") == 1 and result.err.endswith(" (6 of 21 runs: crd, dkd)\n")
    assert "Without a record: 7 of 21 runs: crd, dkd, at (1 of 3).\n" in result.out


def test_settings_of_each_line_are_printed_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    temperatures()
    fitted, markdown = (
        run_command("report", "--settings", "--format", form).out.partition("Settings:\n")[2]
        for form in ("terminal", "md")
    )
    assert "kd_t8\n    method kd, temperature 8, weight of ce 0.1, weight of kd 0.9\n" in fitted
    assert "| kd_t8   | method kd, temperature 8, weight of ce 0.1, weight of kd 0.9 " in markdown
    for options in (("--paper",), ("--fidelity",), ("--format", "tex"), ("--columns", "seeds"), ("--draw",)):
        assert "--settings goes with the table of" in run_command("report", "--settings", *options).error


@pytest.mark.parametrize(("column", "explained"), [("vs student", True), ("seeds", False)])
def test_marks_of_chosen_columns_are_explained(
    column: str, explained: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    temperatures()
    assert ("Paired t-test against student" in shown(80, "--columns", column).out) == explained


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_papers_table_has_blocks_of_the_columns_that_fit(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    temperatures()
    monkeypatch.setenv("COLUMNS", str(width))
    result = run_command("report", "--paper", "--format", "terminal")
    assert result.code == 0 and max(map(len, result.out.splitlines())) <= width
    blocks = result.out.split("\n\n")[1:-1]
    assert len(blocks) == (2 if width == 40 else 1)
    cells = re.findall(r"▸ \d\S+ ± \S+ \S+", "\n".join(blocks))
    assert cells == ["▸ 72.70 ± 0.60 †††", "▸ 82.70 ± 0.60 **"], "the best distilled student of each pair"
    assert "▸ and bold: the best distilled" in result.out and "**82.70" not in result.out


WORDS = st.text("abcdef±", min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(st.data(), st.integers(20, 90))
def test_a_fitted_table_breaks_no_word_and_leaves_out_the_least_important(data: st.DataObject, width: int) -> None:
    rows = data.draw(st.integers(1, 3))
    cells = st.lists(WORDS.map(Text), min_size=rows, max_size=rows)
    kinds = data.draw(st.lists(st.tuples(st.lists(WORDS, min_size=1, max_size=3), st.booleans()), max_size=5))
    columns = [FittedColumn("method", data.draw(cells), is_left=True)]
    columns += [
        FittedColumn(f"{' '.join(words)} c{i}", data.draw(cells), importance=i, goes_below=below)
        for i, (words, below) in enumerate(kinds)
    ]
    table = fitted_table(columns, {0: [Text("head")]}, width)
    lines = [line.plain for line in table.lines]
    assert max(map(len, lines)) <= width
    text = " ".join(lines).split()
    for column in columns:
        is_shown = column.name not in table.left_out
        assert all(cell.plain in text for cell in column.cells) or not is_shown
        assert is_shown or not column.goes_below
    if table.left_out:
        least = min((c for c in columns if c.name in table.left_out), key=lambda c: c.importance or 0)
        assert sum(c.width + 2 for c in columns) - 2 > width, least


def main() -> None:
    TEXTS.mkdir(exist_ok=True)
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            case()
            for width in WIDTHS:
                (TEXTS / f"{name}-{width}.txt").write_text(shown(width).out, encoding="utf-8")


if __name__ == "__main__":
    main()

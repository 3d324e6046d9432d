"""The gains over the student, in plain characters."""

from pathlib import Path

import pytest
import yaml

from harness.planning.next_steps import say_next_steps
from harness.planning.plan import plan_sweep
from harness.reporting.comparison import Contents
from harness.reporting.figures.gain_chart import WIDTH, gain_chart
from harness.reporting.figures.gains import drawings
from harness.store import records
from tests.support.cli import on_a_terminal, run_command
from tests.support.comparisons import SWEEP, compared, row

TOPS = {
    "student": (60.0, 61.0, 62.0),
    "kd": (64.0, 65.5, 65.8),
    "a_method_with_a_name_that_is_long": (60.5, 60.5, 62.6),
    "fitnets": (59.1, 60.0, 61.1),
}
CHART = """\
Gain over student in points of top-1. o: mean over seeds, -: its 95 % interval.

t > s
  kd                        +4.10 **           |                   ------o------
  a_method_wi..hat_is_long  +0.20     ---------|o----------
  fitnets                   -0.93 **    o-     |
                                      -1.3     0                            +5.0
"""


def test_the_drawing_as_it_is_printed() -> None:
    chart = gain_chart(compared(TOPS))
    assert max(map(len, chart.splitlines())) <= WIDTH
    assert chart == CHART


def test_it_fits_a_narrow_terminal_and_long_names_still_differ() -> None:
    names = [f"a_method_of_a_long_name_at_temperature_{t}" for t in (2, 4, 8)]
    lines = gain_chart(compared(dict.fromkeys(["student", *names], (60.0, 61.0, 62.0))), 60).splitlines()
    assert max(map(len, lines)) <= 60
    assert len({line.split()[0] for line in lines if line.startswith("  a_m")}) == 3


def test_one_seed_has_no_interval_and_no_gains_no_drawing() -> None:
    chart = gain_chart(compared({"student": (60.0,), "kd": (61.0,)}))
    (line,) = (line for line in chart.splitlines() if " kd " in line)
    assert "interval" not in chart
    assert ("o" in line, "-" in line) == (True, False)
    assert gain_chart(compared({"kd": (61.0,)})) == ""
    assert list(drawings(compared({"kd": (61.0,)}))) == []
    assert "+0.00" in gain_chart(compared({"student": (60.0,), "kd": (60.0,)})), "its axis has no length"


def test_the_figure_has_a_line_for_each_method() -> None:
    from harness.reporting.figures.style import render

    (drawing,) = drawings(compared(TOPS))
    svg = render(drawing, "svg")["svg"].decode()
    assert drawing.name == "gap"
    assert all(part in svg for name in list(TOPS)[1:] for part in name.split("_")), "a long name is on several lines"
    assert "t &gt; s" in svg and "gain over student (points of top-1 on digits)" in svg


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a sweep file into the current folder, and a record of each of its runs."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(yaml.safe_dump(SWEEP))
    planned = plan_sweep(Path("small.yaml"), Path("results"))
    for i, (run_id, run) in enumerate(planned.plan.runs.items()):
        records.write_record(planned.store, row(run_id, 60.0 + i, 61.0 + i, science=run.science.text))


def test_the_command_draws_it_also_into_a_pipe(small: None) -> None:
    drawn = run_command("report", "small.yaml", "--draw")
    assert drawn.code == 0
    assert "\ndigits_net_w8 > digits_net_w4\n" in drawn.out and "\n  kd " in drawn.out
    Path("other.yaml").write_text(yaml.safe_dump(SWEEP | {"name": "other"}))
    for file in ("small.yaml", "other.yaml"):
        assert run_command("sweep", file).code == 0
    assert all(f"{name}: Gain over" in run_command("report", "--draw").out for name in ("small", "other"))
    columns = run_command("report", "--columns", "seeds").out
    assert columns.startswith("## other\n\n| ") and "\n\n## small\n\n| " in columns
    assert run_command("report", "small.yaml", "--draw", "--paper").error.startswith("--draw prints a drawing")
    assert run_command("report", "small.yaml", "--draw", "--only", "method=kd").error.startswith("--draw: no pair")


def test_a_terminal_shows_it_under_the_table_and_a_pipe_does_not(small: None) -> None:
    piped = run_command("sweep", "small.yaml", "--set", "seeds=[0, 1, 2]")
    with on_a_terminal(80):
        shown = run_command("sweep", "small.yaml", "--set", "seeds=[0, 1, 2]")
    assert (piped.code, shown.code) == (0, 0)
    assert "Gain over" not in piped.out and "Look next" not in piped.err
    assert "\nGain over student in points of top-1." in shown.out
    assert "Methods over" not in shown.out
    report = "python -m harness.report small.yaml --set 'seeds=[0, 1, 2]' --figures figures\n"
    assert "  the table with all settings:\n" in shown.err, "one pair has no ranks"
    assert "  the state of each run:\n" in shown.err and "--retry-failed" not in shown.err
    assert report in shown.err and ": python -m harness.leaderboard\n" in shown.err


def test_failed_runs_have_their_own_next_steps(small: None, capsys: pytest.CaptureFixture[str]) -> None:
    planned = plan_sweep(Path("small.yaml"), Path("results"), None, ["seeds=4"])
    run_id = next(k for k, state in planned.states().items() if state == "to do")
    planned.store.write_failure(run_id, "code", "ValueError: no", "", "log")
    say_next_steps(planned, Contents.of(planned.name, planned.plan), has_ranks=True)
    said = capsys.readouterr().err
    assert "the table with the methods' ranks and all settings" in said
    assert " --failures\n" in said and " --retry-failed\n" in said

"""The suite run again and again: until a run is not green, and on from where it was stopped."""

import json
from pathlib import Path

import pytest

from tests.support import repeated_suite

PASSES_TWICE = """
from pathlib import Path
def test_it():
    runs = Path(__file__).with_name("runs")
    number = len(runs.read_text()) if runs.exists() else 0
    runs.write_text("x" * (number + 1))
    assert number < 2
"""


def test_it_stops_at_the_first_failure_and_counts_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tests, folder = tmp_path / "test_it.py", tmp_path / "kept"
    tests.write_text(PASSES_TWICE)
    arguments = ["-p", "no:xdist", "-p", "no:cacheprovider", str(tests)]
    assert repeated_suite.main(2, 1, arguments, folder)
    assert repeated_suite.main(2, 1, arguments, folder), "both are known"
    assert len((tmp_path / "runs").read_text()) == 2
    assert not repeated_suite.main(4, 1, arguments, folder)
    assert len((tmp_path / "runs").read_text()) == 3, "the third fails, and no other follows"
    runs = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    assert [run["exit_code"] for run in runs] == [0, 0, 1]
    assert "1 failed" in runs[2]["last_line"] and "number < 2" in (folder / runs[2]["log"]).read_text()
    assert "3 of 4: 1 failed" in capsys.readouterr().out

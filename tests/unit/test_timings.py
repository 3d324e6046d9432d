"""Test files that have grown are named at the end of a whole run."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.support import timings
from tests.support.timings import Timings, over_budget

RECORDED = {f"tests/test_{i}.py": 20.0 + i for i in range(timings.WHOLE)}


def test_a_file_that_has_grown_is_over_its_budget() -> None:
    assert not over_budget(RECORDED, RECORDED)
    grown = {**RECORDED, "tests/test_3.py": 40.0, "tests/test_4.py": 34.0, "tests/new.py": 11.0, "tests/small.py": 9.0}
    assert over_budget(grown, RECORDED) == {"tests/test_3.py": 34.5, "tests/new.py": 10.0}


def test_on_a_slower_machine_every_budget_is_larger() -> None:
    assert not over_budget({file: 3 * seconds for file, seconds in RECORDED.items()}, RECORDED)
    slow = {file: 3 * seconds for file, seconds in RECORDED.items()} | {"tests/test_3.py": 110.0}
    assert over_budget(slow, RECORDED) == {"tests/test_3.py": pytest.approx(3 * 34.5)}


class Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write_line(self, line: str) -> None:
        self.lines.append(line)


def run(seconds: dict[str, float], writes: bool) -> list[str]:
    """Report tests as pytest does, two of each file, and return what the summary says."""
    plugin, terminal = Timings(writes), Lines()
    for file, duration in seconds.items():
        for name in ("a", "b"):
            report: Any = type("Report", (), {"nodeid": f"{file}::test_{name}", "duration": duration / 2})
            plugin.pytest_runtest_logreport(report)
    plugin.pytest_terminal_summary(terminal)  # type: ignore[arg-type]
    return terminal.lines


def test_times_are_kept_by_date_and_the_newest_are_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timings, "FILE", tmp_path / "timings.json")
    assert run(RECORDED, False) == []
    timings.FILE.write_text(json.dumps({"2020-01-01": dict.fromkeys(RECORDED, 1.0)}))
    assert run(RECORDED, True) == [f"wrote {timings.FILE}"]
    written = json.loads(timings.FILE.read_text())
    assert written == {"2020-01-01": dict.fromkeys(RECORDED, 1.0), date.today().isoformat(): RECORDED}
    assert run(RECORDED, False) == []
    (line,) = run({**RECORDED, "tests/test_3.py": 40.0}, False)
    assert line.startswith("tests/test_3.py took 40 s, more than its budget of 34 s: ")
    few = dict(list(RECORDED.items())[:-1])
    assert run({**few, "tests/test_3.py": 99.0}, False) == [], "not a whole run"

"""The seconds of each test file: kept by date in ``tests/timings.json``, and compared with them after a whole run."""

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[1] / "timings.json"
WHOLE = 50  # test files: fewer are no whole run, whose workers disturb each other in another way
GROWTH, SLACK = 1.5, 10.0  # times and seconds by which a file may grow
FEW_SECONDS = 2.0  # too little to compare machines by


def over_budget(seconds: Mapping[str, float], recorded: Mapping[str, float]) -> dict[str, float]:
    """Return the budget of each file that took longer than it may, on a machine as much slower as most files were.

    A file without a recorded time may take ``SLACK``.
    """
    common = [seconds[file] / recorded[file] for file in seconds.keys() & recorded if recorded[file] >= FEW_SECONDS]
    pace = statistics.median(common) if common else 1.0
    budgets = {file: pace * max(GROWTH * (known := recorded.get(file, 0.0)), known + SLACK) for file in seconds}
    return {file: budget for file, budget in budgets.items() if seconds[file] > budget}


class Timings:
    """A pytest plugin that adds up the seconds of each file; in pytest's own process, which hears of every test."""

    def __init__(self, writes: bool) -> None:
        self._writes = writes
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid.partition("::")[0]] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if len(self._seconds) < WHOLE:
            return
        recorded = json.loads(FILE.read_text()) if FILE.exists() else {}
        if self._writes:
            recorded[date.today().isoformat()] = {file: round(s, 1) for file, s in sorted(self._seconds.items())}
            FILE.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
            terminalreporter.write_line(f"wrote {FILE}")
        elif recorded:
            for file, budget in sorted(over_budget(self._seconds, recorded[max(recorded)]).items()):
                line = f"{file} took {self._seconds[file]:.0f} s, more than its budget of {budget:.0f} s"
                terminalreporter.write_line(f"{line}: shorten it, or accept it with `make test-timings`")

"""A check's order and results, the JSON files between ``sweep`` and the check's process. Imports no torch."""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.training.job_order import WeightsFile, weights_files


@dataclass(frozen=True)
class RunToCheck:
    """A run, of any seed, that is to take a first step."""

    science: dict[str, Any]
    processes: int  # of the job that will train it
    gpu: bool = False  # whether it trains on one


@dataclass(frozen=True)
class CheckOrder:
    """Runs to check."""

    runs: list[RunToCheck]
    weights: dict[str, WeightsFile]  # as in a JobOrder; those that the runs name and that are at hand
    steps: bool  # False: only the given weights are loaded
    seconds: float  # that the check of one run may take
    threads: int
    results: str  # the file to write results to

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "CheckOrder":
        value = json.loads(path.read_text())
        runs = [RunToCheck(**run) for run in value["runs"]]
        return cls(**{**value, "runs": runs, "weights": weights_files(value["weights"])})


class State(StrEnum):
    """The state of a run's check."""

    BEGUN = "begun"
    PASSED = "passed"
    FAILED = "failed"
    TOO_SLOW = "too slow"
    NOT_HERE = "not here"


@dataclass(frozen=True)
class CheckResult:
    """A line of the file of results; of a run's lines the last counts."""

    run: int  # its position in the order
    state: State
    cause: str = ""  # of a failure, or why it cannot be checked on this machine
    notes: tuple[str, ...] = ()  # on what was taken from the files of its teacher's weights and of its own first ones

    def append_to(self, path: Path) -> None:
        with path.open("a") as f:
            f.write(json.dumps(asdict(self)) + "\n")


def read_results(path: Path) -> dict[int, CheckResult]:
    """Return the newest result of each run that was begun, by its position."""
    results: dict[int, CheckResult] = {}
    for line in path.read_text().split("\n")[:-1] if path.exists() else ():  # what follows the last newline is torn
        value = json.loads(line)
        results[value["run"]] = CheckResult(**{**value, "state": State(value["state"])})
    return results

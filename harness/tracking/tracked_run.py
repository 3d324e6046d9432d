"""A run as trackers see it: its names, settings, curves, and how it ended."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from harness.reporting.comparison import Contents
from harness.reporting.export.tensorboard import event_folders, hyper_parameters
from harness.spec.lines import grouped
from harness.spec.science import Science

FINAL = "final/"  # how tags begin of a record's numbers that are no curves


class State(StrEnum):
    """The state of a run that has started; the second and third are those of a record."""

    RUNNING = "running"
    DONE = "done"
    DIVERGED = "diverged"
    FAILED = "failed"


@dataclass(frozen=True)
class TrackedRun:
    """A run of a sweep, with its names for people."""

    sweep: str
    run_id: str
    label: str  # "kd / seed 0 / resnet56 > resnet20"
    group: str  # its pair; teachers that the sweep trains have a group of their own
    method: str  # as tables name it
    seed: int
    folders: tuple[str, ...]  # of its event files: one for each cell of a table that it fills

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TrackedRun":
        """Return the run that a line of the follower's stdin names."""
        return cls(**{**value, "folders": tuple(value["folders"])})


class Point(NamedTuple):
    """A point of a curve. ``at``: seconds since 1970, of the end of the epoch or, where that is unknown, of the run."""

    epoch: int
    tag: str
    value: float
    at: float


class RunFacts(NamedTuple):
    """The store's knowledge of a run: all its points so far, and its state."""

    science: Science
    started: float
    points: tuple[Point, ...]
    state: State
    cause: str = ""  # of a failure

    @property
    def has_ended(self) -> bool:
        return self.state is not State.RUNNING

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting by its name, as ``recipe.lr``."""
        science = self.science
        listed = {
            "dataset": science.dataset.name,
            "teacher": science.teacher_model,
            "student": science.student,
            "method": science.method.use,
            "seed": science.seed,
        }
        return dict(hyper_parameters(listed, science))


Key = tuple[int, str]  # a point's epoch and tag


class Tracker(Protocol):
    """A tool that shows runs. Its methods may raise anything: then the tool is given up, and no training notices."""

    def begin(self, run: TrackedRun, facts: RunFacts) -> set[Key] | None:
        """Make ready for a run's points.

        Returns:
            The points that the tool has of it already; None if it has all and knows how the run ended.
        """

    def add(self, run: TrackedRun, points: Iterable[Point]) -> None:
        """Show further points of a run that has begun, by epoch."""

    def end(self, run: TrackedRun, facts: RunFacts) -> None:
        """Show how a run ended. One that is still in training is only closed: it may begin again."""


def tracked_runs(contents: Contents) -> list[TrackedRun]:
    """Return the runs of a sweep's table, teachers that it trains included, each once."""
    folders = event_folders(contents)
    by_run = grouped(folders, lambda folder: folders[folder])
    names: dict[str, tuple[str, str, str, int]] = {}
    for cell in contents.cells:
        pair = f"{cell.teacher} > {cell.student}"
        label = f"{cell.method} / seed {cell.seed} / {pair}"  # tools cut the end of long names
        names.setdefault(cell.run_id, (label, pair, cell.method, cell.seed))
    for cell in contents.cells:
        if cell.teacher_run:
            names.setdefault(cell.teacher_run, (f"teacher {cell.teacher}", "teachers", "teacher", cell.seed))
    return [TrackedRun(contents.name, run_id, *names[run_id], tuple(by_run[run_id])) for run_id in by_run]


def by_epoch(points: Iterable[Point]) -> Mapping[int, list[Point]]:
    """Return points by epoch, in order."""
    return grouped(sorted(points, key=lambda point: point.epoch), lambda point: point.epoch)

"""The published numbers that come with the harness, as papers print them, each with its protocol."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from harness.phrases import file_name
from harness.reporting.comparison import BASELINE
from harness.spec.datasets import task_of
from harness.spec.lines import Line, LinePart, grouped

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks" / "published"


@dataclass(frozen=True)
class Protocol:
    """A source's way of measuring. Numbers of two protocols are not comparable."""

    id: str
    label: str  # short, for a column's head
    epoch: str  # last, best (chosen by the test set) or unknown
    epochs: str  # as printed; "" when not stated
    recipe: str  # the recipe of ours that it is, up to a number's recipe_change; "" when not known
    origin: str  # own, quoted, unstated or secondary: whose numbers they are
    source: str
    note: str
    framework: str  # of detectors: detectron2 or mmdetection
    schedule: str  # of detectors, in words: "1x (90k iterations of 16 images)"

    @property
    def length(self) -> str:
        """The length of training, in words."""
        return self.schedule or (f"{self.epochs} epochs" if self.epochs else "epochs not stated")


@dataclass(frozen=True)
class Number(LinePart):
    """One published number, under our names for models and method."""

    settings: Mapping[str, str]  # settings that define this variant of the method
    value: str  # as printed, with its decimals
    std: str
    protocol: str
    recipe_change: Mapping[str, str]
    teacher_accuracy: float | None  # in the number's metric


Numbers = Mapping[Line, Sequence[Number]]  # in the sources' order
NO_TEACHER = "none"  # the teacher of students in sources that do not distil


@dataclass(frozen=True)
class PublishedNumbers:
    """The accuracies published on a dataset."""

    protocols: Mapping[str, Protocol]
    numbers: Mapping[str, Numbers]  # of each metric that the task's tables print

    def of(self, line: Line, metric: str) -> tuple[Number, ...]:
        """Return a line's numbers. An undistilled student's include those of sources that do not distil."""
        numbers = self.numbers[metric]
        undistilled = numbers.get(line._replace(teacher=NO_TEACHER), ()) if line.method == BASELINE else ()
        return (*numbers.get(line, ()), *undistilled)


@cache
def published_numbers(dataset: str) -> PublishedNumbers | None:
    """Return the numbers published on a dataset of the harness; None when there are none."""
    if not published_file(dataset).exists():
        return None
    columns = [field.name for field in fields(Protocol) if field.name != "id"]
    protocols = {
        r["protocol"]: Protocol(r["protocol"], **{name: r[name] for name in columns})
        for r in _rows(FOLDER / "protocols.csv")
        if r["dataset"] == dataset
    }
    rows = _rows(published_file(dataset))
    return PublishedNumbers(protocols, {metric: _numbers(rows, metric) for metric in task_of(dataset).printed})


def _numbers(rows: Iterable[Mapping[str, str]], metric: str) -> Numbers:
    numbers = (
        Number(
            **{name: r[name] for name in ("teacher", "student", "method", "value", "std", "protocol")},
            settings=_settings(r["settings"]),
            recipe_change=_settings(r["recipe_change"]),
            teacher_accuracy=float(r["teacher_value"]) if r["teacher_value"] else None,
        )
        for r in rows
        if r["metric"] == metric and r["teacher"] and r["student"] and r["method"]
    )
    return grouped(numbers, lambda number: number.line)


def published_file(dataset: str) -> Path:
    """Return the file of a dataset's numbers, which may be missing."""
    return FOLDER / f"{file_name(dataset)}.csv"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def _settings(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split())

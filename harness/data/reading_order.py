"""The order to read a dataset once, and what comes of it: JSON files between a command and the process that reads.

Imports no torch.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ReadingOrder:
    """A dataset to read."""

    dataset: dict[str, Any]  # as the schema's Dataset
    root: str | None  # the data root
    place: str | None  # of a dataset of the harness: the folder or file that has it
    cache: str  # the folder of the ``DataCache`` to write to
    key: str  # of its source there
    progress: str  # the file that tells how far the reading is
    result: str  # the file that tells an error, or notes for people

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "ReadingOrder":
        return cls(**json.loads(path.read_text()))


@dataclass(frozen=True)
class ReadingResult:
    """The end of a reading."""

    error: str = ""
    note: str = ""  # for people: whether these are the official data

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "ReadingResult | None":
        """Return what a process has written; None if it ended before."""
        return cls(**json.loads(path.read_text())) if path.exists() else None

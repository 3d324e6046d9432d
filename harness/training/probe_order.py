"""A probe's order and answer, the two JSON files between ``sweep --probe`` and its process. Imports no torch."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.store import files

FIRST_STAGE = "it begins with a first stage, which is not probed"


@dataclass(frozen=True)
class ProbeOrder:
    """A pack whose first steps are to be timed."""

    sciences: list[dict[str, Any]]
    data: str | None  # the dataset's folder; None: it comes with a package
    threads: int
    steps: int  # to time, at most
    seconds: float  # to spend on them, at most
    folder: str  # for the probe's throw-away stores
    answer: str  # the file to write the answer to
    started_at: float  # when its process was started, as time.monotonic()

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "ProbeOrder":
        return cls(**json.loads(path.read_text()))


@dataclass(frozen=True)
class ProbeAnswer:
    """The pace of a pack's steps."""

    measured: list[int]  # positions of the runs that took part
    left_out: dict[str, str]  # position -> why it did not
    seconds_per_step: list[float]
    start_s: float  # from the start of the process to the first step
    checkpoint_bytes: int
    hardware: str

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "ProbeAnswer | None":
        """Return the answer; None when there is none."""
        value = files.read_json(path)
        return cls(**value) if isinstance(value, dict) else None

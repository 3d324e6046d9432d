"""A stage's order: what its process is told, as one argument of its command line."""

import ctypes
import json
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.gpu.findings import Findings

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class StageOrder:
    """The folders, the end and the scale of a stage."""

    out: Path  # what the program leaves
    work: Path  # what it need not leave: unpacked data, the store in training
    data: Path | None  # the data root
    began: float  # time.time() at which the program was called
    until: float  # time.time() at which the stage ends by itself
    smoke: bool  # small, on a CPU: to test the program

    @property
    def seconds_left(self) -> float:
        return self.until - time.time()

    @property
    def findings(self) -> Findings:
        return Findings.of(self.out)

    @property
    def device(self) -> str:
        return "cpu" if self.smoke else "cuda"

    def to_argument(self) -> str:
        return json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()})

    @classmethod
    def from_command_line(cls) -> "StageOrder":
        """Return the order that this process was started with. It is told to end when the one that started it dies."""
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        value = json.loads(sys.argv[1])
        folders = {k: Path(value[k]) if value[k] else None for k in ("out", "work", "data")}
        return cls(**{**value, **folders})

"""A job's order: all that the submitter passes to a job, as plain JSON. Imports no torch."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class WeightsFile:
    """Weights that a sweep file gives, as a file that jobs can read."""

    file: str
    score: float | None = None  # the score that the sweep file states for them


@dataclass(frozen=True)
class JobOrder:
    """Runs to train in one job. Only ``run_ids`` is science; the rest says where, and with what."""

    store: str  # the folder, absolute
    run_ids: tuple[str, ...]
    data: str | None  # the dataset's folder; None: it comes with a package
    weights: dict[str, WeightsFile]  # by `weights_id`
    threads: int  # of each process
    engine: str = "native"  # or "deepspeed"
    zero_stage: int = 0  # of engine deepspeed
    keep_best: bool = False  # whether the weights of a run's best epoch are kept too
    stage: str | None = None  # a folder of the node, with its variables, to which the data are copied first
    asked: dict[str, Any] = field(default_factory=dict)  # of a scheduler: keys of an attempt's note

    def to_json(self) -> dict[str, Any]:
        """Return the order as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "JobOrder":
        """Return the order that ``to_json`` made into plain values."""
        return cls(**{**value, "run_ids": tuple(value["run_ids"]), "weights": weights_files(value["weights"])})


def weights_files(value: dict[str, dict[str, Any]]) -> dict[str, WeightsFile]:
    """Return weights by ``weights_id`` from their plain values."""
    return {name: WeightsFile(**file) for name, file in value.items()}

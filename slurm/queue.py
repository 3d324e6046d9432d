"""What is left to train, written down so that no driver has to stay alive: one JSON file per submitted sweep."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.store import files


def cancelled(queue_file: Path) -> Path:
    """Exists from a cancellation until the sweep is run again, so that whoever watches does not start lost jobs."""
    return queue_file.with_suffix(".cancelled")


@dataclass(frozen=True)
class QueuedPack:
    run_ids: tuple[str, ...]
    needs: str | None  # the run that trains their teacher


@dataclass(frozen=True)
class Queue:
    """Packs in the order in which they should start, and how jobs are started."""

    store: str  # absolute
    packs: tuple[QueuedPack, ...]
    max_parallel: int
    threads: int  # per job on this machine; a cluster's profile says its own
    data: str | None  # the folder that holds the dataset; None: it comes with a package
    weights: dict[str, dict[str, Any]]  # sha256 -> {"file", "score"} of given teacher weights
    cluster: str | None  # a profile's name; None: this machine

    def write(self, path: Path) -> None:
        files.replace_json(path, asdict(self))
        cancelled(path).unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> "Queue":
        """Raises:
        UserError: it is missing or damaged.
        """
        value = files.read_json(path)
        if not isinstance(value, dict):
            raise UserError(f"{path}: missing or damaged; run the sweep again to write it anew")
        packs = tuple(QueuedPack(tuple(p["run_ids"]), p["needs"]) for p in value.pop("packs"))
        return cls(packs=packs, **value)

"""Queue files: the packs of a submitted sweep that are left to train, so that no driver has to stay alive."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.spec.science import Science
from harness.store import files
from harness.store.store import Store
from harness.training.job_order import JobOrder, WeightsFile, weights_files


def cancelled_file(queue_file: Path) -> Path:
    """Return the file that exists from a cancellation until the sweep is run again.

    While it exists, nobody who watches the sweep starts lost jobs.
    """
    return queue_file.with_suffix(".cancelled")


@dataclass(frozen=True)
class QueuedRun:
    run_id: str
    method: str  # its name, or ``module:Class``
    has_teacher: bool
    accumulate: int  # micro-batches of each batch


@dataclass(frozen=True)
class QueuedPack:
    """Runs of one job, with what its resources depend on."""

    runs: tuple[QueuedRun, ...]
    needs: str | None  # the run that trains their teacher
    student: str
    teacher: str | None  # the model
    train_images: int
    batch_size: int

    @classmethod
    def from_sciences(cls, sciences: Mapping[str, Science], needs: str | None) -> "QueuedPack":
        """Return the pack of these runs, by run id. They share student, teacher, dataset and batch size."""
        science = next(iter(sciences.values()))
        return cls(
            runs=tuple(
                QueuedRun(run_id, s.method.use, s.teacher is not None, s.recipe.accumulate)
                for run_id, s in sciences.items()
            ),
            needs=needs,
            student=science.student,
            teacher=next((s.teacher.model for s in sciences.values() if s.teacher), None),
            train_images=science.dataset.train_images,
            batch_size=science.recipe.batch_size,
        )

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(run.run_id for run in self.runs)

    def only(self, run_ids: Container[str]) -> "QueuedPack":
        """Return the pack without the runs that are not among ``run_ids``."""
        runs = tuple(run for run in self.runs if run.run_id in run_ids)
        if any(run.has_teacher for run in runs):
            return replace(self, runs=runs)
        return replace(self, runs=runs, needs=None, teacher=None)


@dataclass(frozen=True)
class Queue:
    """Packs in the order in which they should start, and the data of their jobs."""

    store: str  # absolute
    packs: tuple[QueuedPack, ...]
    max_parallel: int
    threads: int  # per job on this machine; a cluster's profile states its own
    data: str | None  # the dataset's folder; None: it comes with a package
    weights: dict[str, WeightsFile]  # by sha256
    cluster: str | None  # a profile's name or file; None: this machine

    def order(self, run_ids: Iterable[str]) -> JobOrder:
        """Return the order of a job that trains these runs on this machine."""
        return JobOrder(self.store, tuple(run_ids), self.data, self.weights, self.threads)

    def write(self, path: Path) -> None:
        """Replace the queue file, and forget a cancellation."""
        # Harnesses before QueuedRun read `run_ids`; one of their local queues may still be at work.
        packs = [{**asdict(pack), "run_ids": pack.run_ids} for pack in self.packs]
        files.replace_json(path, {**asdict(self), "packs": packs})
        cancelled_file(path).unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> "Queue":
        """Return the queue that a file holds.

        Raises:
            UserError: it is missing or damaged.
        """
        value: Any = files.read_json(path)
        try:
            packs = value["packs"]
            if all("runs" in pack for pack in packs):
                value["packs"] = tuple(_pack(**pack) for pack in packs)
            else:
                value["packs"] = tuple(_old_packs(Store(Path(value["store"])), packs))
            return cls(**{**value, "weights": weights_files(value["weights"])})
        except (KeyError, TypeError):
            raise UserError(f"{path}: missing or damaged; run the sweep again to write it again") from None


def _pack(run_ids: list[str], runs: list[dict[str, Any]], **fields: Any) -> QueuedPack:
    return QueuedPack(runs=tuple(QueuedRun(**run) for run in runs), **fields)


def _old_packs(store: Store, packs: list[dict[str, Any]]) -> list[QueuedPack]:
    """Return the open runs of a queue that lists run ids only; the rest stands in the store."""
    settled = store.done_ids() | store.failed_ids()
    sciences = [{k: store.read_science(k) for k in pack["run_ids"] if k not in settled} for pack in packs]
    return [
        QueuedPack.from_sciences(of_pack, pack["needs"])
        for pack, of_pack in zip(packs, sciences, strict=True)
        if of_pack
    ]

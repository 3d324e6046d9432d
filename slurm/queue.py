"""Queue files: the jobs of a submitted sweep that are left to train, so that no driver has to stay alive."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.spec.science import Science
from harness.store import files
from harness.store.store import Store
from harness.training.job_order import JobOrder, WeightsFile, weights_files

WAITS_IN_ITS_JOB = "waits for other seeds of its job"  # what is said of a run that a job has not come to yet


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
class QueuedJob:
    """Runs of one job, with what its resources depend on."""

    runs: tuple[QueuedRun, ...]
    needs: str | None  # the run that trains their teacher
    student: str
    teacher: str | None  # the model
    train_images: int
    batch_size: int
    packs: int = 1  # of different seeds

    @classmethod
    def from_sciences(cls, sciences: Mapping[str, Science], needs: str | None) -> "QueuedJob":
        """Return the job of these runs, by run id. They share student, teacher, dataset and batch size."""
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
            packs=len({s.seed for s in sciences.values()}),
        )

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(run.run_id for run in self.runs)

    def only(self, run_ids: Container[str]) -> "QueuedJob":
        """Return the job without the runs that are not among ``run_ids``."""
        runs = tuple(run for run in self.runs if run.run_id in run_ids)
        if any(run.has_teacher for run in runs):
            return replace(self, runs=runs)
        return replace(self, runs=runs, needs=None, teacher=None)


@dataclass(frozen=True)
class Queue:
    """Jobs in the order in which they should start, and their data."""

    store: str  # absolute
    jobs: tuple[QueuedJob, ...]
    max_parallel: int
    threads: int  # per job on this machine; a cluster's profile states its own
    data: str | None  # the dataset's folder; None: it comes with a package
    weights: dict[str, WeightsFile]  # by `weights_id`
    cluster: str | None  # a profile's name or file; None: this machine

    def order(self, run_ids: Iterable[str]) -> JobOrder:
        """Return the order of a job that trains these runs on this machine."""
        return JobOrder(self.store, tuple(run_ids), self.data, self.weights, self.threads)

    def write(self, path: Path) -> None:
        """Replace the queue file, and forget a cancellation."""
        fields = {k: v for k, v in asdict(self).items() if k != "jobs"}
        files.replace_json(path, {**fields, "packs": [_job_json(job) for job in self.jobs]})
        cancelled_file(path).unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> "Queue":
        """Return the queue that a file holds.

        Raises:
            UserError: it is missing or damaged.
        """
        value: Any = files.read_json(path)
        try:
            as_jobs = (
                _jobs if all("runs" in job for job in value["packs"]) else partial(_old_jobs, Path(value["store"]))
            )
            fields = {k: v for k, v in value.items() if k != "packs"}
            jobs, weights = tuple(as_jobs(value["packs"])), weights_files(value["weights"])
            return cls(**{**fields, "jobs": jobs, "weights": weights})
        except (KeyError, TypeError):
            raise UserError(f"{path}: missing or damaged; run the sweep again to write it again") from None


def _job_json(job: QueuedJob) -> dict[str, Any]:
    """Return a job's plain values. An earlier harness refuses those of several packs, which it would train as one."""
    fields = asdict(job)
    if job.packs > 1:
        return fields
    del fields["packs"]
    return {**fields, "run_ids": job.run_ids}  # what harnesses before QueuedRun read; their queue may be at work


def _jobs(jobs: list[dict[str, Any]]) -> list[QueuedJob]:
    known = [{k: v for k, v in job.items() if k != "run_ids"} for job in jobs]
    return [QueuedJob(**{**job, "runs": tuple(QueuedRun(**run) for run in job["runs"])}) for job in known]


def _old_jobs(store_folder: Path, jobs: list[dict[str, Any]]) -> list[QueuedJob]:
    """Return the open runs of a queue that lists run ids only; the rest stands in the store."""
    store = Store(store_folder)
    settled = store.done_ids() | store.failed_ids()
    sciences = [{k: store.read_science(k) for k in job["run_ids"] if k not in settled} for job in jobs]
    return [QueuedJob.from_sciences(of_job, job["needs"]) for job, of_job in zip(jobs, sciences, strict=True) if of_job]

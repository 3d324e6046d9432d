"""Queue files: the jobs of a submitted sweep that are left to train, so that no driver has to stay alive."""

import glob
import os
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from harness.errors import UserError, shorten
from harness.spec.science import Science
from harness.store import checksums, files, json_files, ownership
from harness.store.store import Store
from harness.training.job_order import JobOrder, WeightsFile

WAITS_IN_ITS_JOB = "waits for other seeds of its job"  # what is said of a run that a job has not come to yet


def cancelled_file(queue_file: Path) -> Path:
    """Return the file that exists from a cancellation until the sweep is run again.

    While it exists, nobody who watches the sweep starts lost jobs.
    """
    return queue_file.with_suffix(".cancelled")


def told_file(queue_file: Path, submitted: int, event: str) -> Path:
    """Return the file that exists once the user was told of an event of a submission."""
    return queue_file.with_suffix(f".told-{event}-{submitted}")


def watched_file(queue_file: Path) -> Path:
    """Return the file whose time of change says when a queue was last watched by who starts lost jobs again."""
    return queue_file.with_suffix(".watched")


def own_queue_file(store: Store, sweep: str, run_ids: Iterable[str]) -> Path:
    """Return the file of this user's queue of a sweep's runs. Each user of a store has a dispatcher of their own."""
    content = "".join(sorted(run_ids))
    of_one_user = _queue_file(store, sweep, content)  # as harnesses named it that knew one user; it may be at work
    with suppress(FileNotFoundError):
        if not ownership.other_owner(of_one_user):
            return of_one_user
    return _queue_file(store, sweep, f"{content} {os.geteuid()}")


def _queue_file(store: Store, sweep: str, content: str) -> Path:
    return store.queue(f"{sweep}-{sha256(content.encode()).hexdigest()[:8]}")


Count = Annotated[int, Field(ge=1)]
RunId = Annotated[str, Field(pattern=r"^\w+$")]  # it names folders of the store


@dataclass(frozen=True)
class QueuedRun:
    __pydantic_config__ = json_files.CLOSED
    run_id: RunId
    method: str  # its name, or ``module:Class``
    has_teacher: bool
    accumulate: Count  # micro-batches of each batch


@dataclass(frozen=True)
class QueuedJob:
    """Runs of one job, with what its resources depend on."""

    __pydantic_config__ = json_files.CLOSED
    runs: tuple[QueuedRun, ...]
    needs: str | None  # the run that trains their teacher
    student: str
    teacher: str | None  # the model
    train_images: Count
    batch_size: Count
    packs: Count = 1  # of different seeds
    also_needs: tuple[str, ...] = ()  # the runs that train their further teachers

    @classmethod
    def from_sciences(
        cls, sciences: Mapping[str, Science], needs: str | None, also_needs: tuple[str, ...] = ()
    ) -> "QueuedJob":
        """Return the job of these runs, by run id. They share student, teacher, dataset and batch size."""
        science = next(iter(sciences.values()))
        return cls(
            runs=tuple(
                QueuedRun(run_id, s.method.use, s.teacher is not None, s.recipe.accumulate)
                for run_id, s in sciences.items()
            ),
            needs=needs,
            also_needs=also_needs,
            student=science.student,
            teacher=next((s.teacher.model for s in sciences.values() if s.teacher), None),
            train_images=science.images_per_pass,
            batch_size=science.recipe.batch_size,
            packs=len({s.seed for s in sciences.values()}),
        )

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(run.run_id for run in self.runs)

    @property
    def all_needs(self) -> tuple[str, ...]:
        """The runs that train their teachers."""
        return tuple(filter(None, (self.needs, *self.also_needs)))

    def only(self, run_ids: Container[str]) -> "QueuedJob":
        """Return the job without the runs that are not among ``run_ids``."""
        runs = tuple(run for run in self.runs if run.run_id in run_ids)
        if any(run.has_teacher for run in runs):
            return replace(self, runs=runs)
        return replace(self, runs=runs, needs=None, also_needs=(), teacher=None)


def _without_run_ids(job: Any) -> Any:
    """Return a job of a file without its checksum and what only harnesses before QueuedRun read."""
    return {k: v for k, v in job.items() if k not in ("run_ids", checksums.KEY)} if isinstance(job, dict) else job


@dataclass(frozen=True)
class Notification:
    """The user's command that tells how a submission ends, and what its summary counts."""

    __pydantic_config__ = json_files.CLOSED
    command: str  # for the shell
    folder: str  # in which it runs: that of the submission
    sweep: str
    runs: Count  # of the whole sweep
    done: Annotated[int, Field(ge=0)]  # of these, before the submission
    failed: Annotated[int, Field(ge=0)]  # and not tried again
    submitted: Count  # nanoseconds since 1970, by which marks of two submissions differ


@dataclass(frozen=True)
class Queue:
    """Jobs in the order in which they should start, and their data."""

    __pydantic_config__ = json_files.CLOSED
    store: str  # absolute
    jobs: Annotated[tuple[Annotated[QueuedJob, BeforeValidator(_without_run_ids)], ...], Field(alias="packs")]
    max_parallel: Count
    threads: Count  # per job on this machine; a cluster's profile states its own
    data: str | None  # the dataset's folder; None: it comes with a package
    weights: dict[str, WeightsFile]  # by `weights_id`
    cluster: str | None  # a profile's name or file; None: this machine
    keep_best: bool = False  # whether the weights of a run's best epoch are kept too
    notify: Notification | None = None

    @cached_property
    def run_ids(self) -> frozenset[str]:
        return frozenset(k for job in self.jobs for k in job.run_ids)

    @property
    def read_paths(self) -> list[str]:
        """The files and folders outside the store that jobs read."""
        return [*filter(None, [self.data]), *(weights.file for weights in self.weights.values())]

    def order(self, run_ids: Iterable[str]) -> JobOrder:
        """Return the order of a job that trains these runs on this machine."""
        return JobOrder(self.store, tuple(run_ids), self.data, self.weights, self.threads, keep_best=self.keep_best)

    def write(self, path: Path) -> None:
        """Replace the queue file, which only its owner may write to, and forget a cancellation and what was told."""
        fields = {k: v for k, v in asdict(self).items() if k != "jobs"}
        if not self.keep_best:  # which an earlier harness does not know, whose queue may be at work
            del fields["keep_best"]
        if not self.notify:  # likewise
            del fields["notify"]
        path.parent.mkdir(parents=True, exist_ok=True)  # where others may write their own
        with ownership.writable_by_owner_alone():
            files.replace_json(path, {**fields, "packs": [_sealed(_job_json(job), fields) for job in self.jobs]})
        cancelled_file(path).unlink(missing_ok=True)
        for told in files.entries(path.parent, f"{glob.escape(path.stem)}.told-*"):
            told.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> "Queue":
        """Return the queue that a file holds.

        Raises:
            UserError: it is missing, unreadable or damaged.
        """
        try:
            return cls._of(json_files.read_checked(dict[str, Any], path), path)
        except FileNotFoundError:
            raise _missing(path) from None

    @classmethod
    def read_own(cls, path: Path) -> "Queue":
        """Return the queue as ``read`` does, to start its jobs: what they do is for nobody else to say.

        Raises:
            UserError: it is missing or damaged, another user may have written it, or it is of another store.
        """
        try:
            value = json_files.parse_checked(dict[str, Any], ownership.read_private(path), str(path))
        except FileNotFoundError:
            raise _missing(path) from None
        queue = cls._of(value, path)
        if Path(queue.store, "queues").resolve() != path.parent.resolve():
            raise UserError(f"{path}: of the store {shorten(queue.store)}; run the sweep again")
        return queue

    @classmethod
    def _of(cls, value: dict[str, Any], path: Path) -> "Queue":
        jobs = value.get("packs")
        if isinstance(jobs, list) and any(isinstance(job, dict) and "runs" not in job for job in jobs):
            old = json_files.check_value(_OldQueue, value, str(path))
            return cls(**{**vars(old), "jobs": tuple(_old_jobs(Path(old.store), old.jobs))})
        queue = json_files.check_value(cls, value, str(path))
        fields = {k: v for k, v in value.items() if k != "packs"}
        if any(job != _sealed(job, fields) for job in value["packs"] if checksums.KEY in job):
            raise UserError(f"{path}: damaged: its content does not match its checksums")
        return queue


def _sealed(job: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Return a job of a file with a checksum of it and of the file's other ``fields``. It stands in the job, where
    harnesses before QueuedRun ignore it; younger ones refuse the file, and their queue starts nothing more.
    """
    content = {k: v for k, v in job.items() if k != checksums.KEY}
    return {**content, checksums.KEY: checksums.seal_value({**fields, **content})[checksums.KEY]}


def _missing(path: Path) -> UserError:
    return UserError(f"{path}: missing; run the sweep again to write it again")


def _job_json(job: QueuedJob) -> dict[str, Any]:
    """Return a job's plain values. An earlier harness refuses those of several packs, which it would train as one, and
    those that wait for several teachers."""
    fields = asdict(job)
    if not job.also_needs:
        del fields["also_needs"]
    if job.packs > 1:
        return fields
    del fields["packs"]
    return {**fields, "run_ids": job.run_ids}  # what harnesses before QueuedRun read; their queue may be at work


@dataclass(frozen=True)
class _OldJob:
    """A job of a queue that lists run ids only."""

    __pydantic_config__ = json_files.CLOSED
    run_ids: tuple[RunId, ...]
    needs: str | None


@dataclass(frozen=True)
class _OldQueue(Queue):
    jobs: Annotated[tuple[_OldJob, ...], Field(alias="packs")]  # type: ignore[assignment]


def _old_jobs(store_folder: Path, jobs: Iterable[_OldJob]) -> list[QueuedJob]:
    """Return the open runs of a queue that lists run ids only; the rest stands in the store."""
    store = Store(store_folder)
    settled = store.done_ids() | store.failed_ids()
    open_runs = ((job, {k: store.read_science(k) for k in job.run_ids if k not in settled}) for job in jobs)
    return [QueuedJob.from_sciences(sciences, job.needs) for job, sciences in open_runs if sciences]

"""Array jobs that were submitted to SLURM: a note of each in the store, which is written before sbatch is called.

A crash at any moment leaves nothing unknown: the next start finds a job by the name in its note, and adopts it.
"""

import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.store import checksums, files, json_files, ownership
from harness.store.locks import Lock
from harness.store.store import Store
from slurm import commands


def new_name(queue_file: Path) -> str:
    """Return the name of a further array job of a queue."""
    return f"kd-{queue_file.stem}-{uuid.uuid4().hex[:8]}"


def queue_file_of(store: Store, name: str) -> Path:
    """Return the queue whose runs the array job of a name trains."""
    return store.queue(name.removeprefix("kd-").rpartition("-")[0])


@dataclass
class ArrayJob:
    """One sbatch call: an array whose task i trains the runs packs[i]."""

    __pydantic_config__ = json_files.CLOSED
    name: str  # unique among all SLURM jobs
    folder: str
    packs: list[list[str]]  # the run ids of each task, whose packs may be several
    specs: list[dict[str, Any]]  # the JobOrder of each task
    job_id: str | None = None  # None until sbatch has answered
    user: str = field(default_factory=commands.user)  # who submitted it: a store may be shared

    def task(self, i: int) -> str:
        """Return the id of task i: ``12_3``, or ``12`` where there is one task only."""
        return f"{self.job_id}_{i}" if len(self.packs) > 1 else str(self.job_id)


def squeue(array_jobs: list[ArrayJob]) -> list[commands.JobState]:
    """Return this user's pending and running jobs and those of the users who submitted array jobs.

    Raises:
        UserError: SLURM does not answer.
    """
    return commands.squeue({commands.user(), *(array_job.user for array_job in array_jobs)})


def by_run(array_jobs: list[ArrayJob], jobs: list[commands.JobState]) -> dict[str, commands.JobState]:
    """Return run_id -> the job among ``jobs`` that is to train it."""
    by_name = {(job.name, job.job_id): job for job in jobs}
    return {
        run_id: job
        for array_job in array_jobs
        for i, pack in enumerate(array_job.packs)
        if (job := by_name.get((array_job.name, array_job.task(i)))) is not None
        for run_id in pack
    }


@dataclass(frozen=True)
class ArrayJobs:
    """The notes of a store. A run may have been submitted by another sweep, so they are read together."""

    store: Store

    def read(self) -> list[ArrayJob]:
        """Return every noted job, oldest first. Without one of them its runs might be submitted twice.

        Raises:
            UserError: a note is unreadable or damaged.
        """
        notes = []
        for path in files.entries(self.store.submissions, "*.json"):
            with suppress(FileNotFoundError):  # another submitter has removed it since
                notes.append((path.stat().st_mtime, path, json_files.read_checked(ArrayJob, path)))
        return [job for *_, job in sorted(notes, key=lambda note: note[:2])]

    def write(self, job: ArrayJob) -> None:
        """Replace a job's note, which only its owner may write to."""
        path = self.store.submission(job.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with ownership.writable_by_owner_alone():
            files.replace_json(path, checksums.seal_value(asdict(job)))

    def is_own(self, job: ArrayJob) -> bool:
        """Return whether nobody else can have written a job's note."""
        return ownership.is_private(self.store.submission(job.name).stat())

    def remove(self, job: ArrayJob) -> None:
        self.store.submission(job.name).unlink(missing_ok=True)

    def submit_lock(self) -> Lock:
        """Return the lock that admits one submitter at a time."""
        return Lock(self.store.submissions / "lock", wait=True)

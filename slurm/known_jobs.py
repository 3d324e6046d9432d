"""Jobs that SLURM knows: pending and running ones, and how others ended. One answer serves all queues of a store."""

import sys
import time
from collections.abc import Set
from dataclasses import dataclass, field

from harness.errors import UserError
from slurm import commands
from slurm.array_jobs import ArrayJobs, by_run, squeue
from slurm.commands import JobState


@dataclass
class KnownJobs:
    """Pending and running jobs, and how others have ended. The queues of one store that share this ask SLURM once."""

    live: dict[str, JobState] = field(default_factory=dict)  # run_id -> its pending or running job
    of_user: int = 0  # pending and running jobs and array tasks of this user, whatever they do
    ends: dict[str, JobState] = field(default_factory=dict)  # run_id -> its last job
    is_silent: bool = False  # SLURM did not answer when it was last asked
    _asked_at: float | None = None
    _of_unknown_ends: set[str] = field(default_factory=set)  # runs of queues for which accounting was not asked yet

    def add_queue(self, run_ids: Set[str]) -> None:
        """Let a queue share the answers."""
        self._of_unknown_ends |= run_ids

    def is_due(self, poll_seconds: float) -> bool:
        """Return whether the last answer is older than this."""
        return self._asked_at is None or time.monotonic() - self._asked_at >= poll_seconds

    def forget(self) -> None:
        """Let SLURM be asked again, whenever it was asked last."""
        self._asked_at = None

    def update(self, array_jobs: ArrayJobs, poll_seconds: float) -> None:
        """Ask for jobs, by one squeue call, if the last answer is older than ``poll_seconds``.

        Raises:
            UserError: SLURM does not answer.
        """
        if self.is_due(poll_seconds):
            self._asked_at = time.monotonic()
            noted = array_jobs.read()
            jobs = squeue(noted)
            self.of_user = sum(job.user == commands.user() for job in jobs)
            self.live = by_run(noted, jobs)

    def update_if_answered(self, array_jobs: ArrayJobs, poll_seconds: float) -> bool:
        """Ask for jobs as ``update`` does, and return whether SLURM answers; say once that it does not."""
        if self.is_silent and not self.is_due(poll_seconds):
            return False
        try:
            self.update(array_jobs, poll_seconds)
        except UserError as e:
            if not self.is_silent:
                print(f"note: {e}; asking again", file=sys.stderr, flush=True)
            self.is_silent = True
            return False
        self.is_silent = False
        return True

    def update_ends(self, array_jobs: ArrayJobs) -> None:
        """Ask how the last jobs of open runs ended, by one sacct call, for the queues that were added since."""
        if not self._of_unknown_ends:
            return
        settled = array_jobs.store.done_ids() | array_jobs.store.failed_ids() | self.live.keys()
        open_runs, self._of_unknown_ends = self._of_unknown_ends - settled, set()
        last = {
            run_id: (array_job.name, array_job.task(i))
            for array_job in array_jobs.read()
            for i, pack in enumerate(array_job.packs)
            for run_id in open_runs.intersection(pack)
        }
        ended = commands.sacct(sorted({job_id for _, job_id in last.values()}))
        states = {(job.name, job.job_id): job for job in ended}
        self.ends |= {k: job for k, key in last.items() if (job := states.get(key)) is not None}

"""Runs that no job of a cluster will come to by itself: their jobs are gone, or SLURM holds them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import UserError
from harness.store.store import Store
from slurm import array_jobs
from slurm.commands import JobState
from slurm.queue import Queue

HELD = ("held", "hold", "neversatisfied", "badconstraints")  # in SLURM's reasons, in lower case


class Jobs(Protocol):
    """Answers of a scheduler, as a backend gives them."""

    def runs_without_job(self) -> set[str]: ...
    def scheduled(self, run_id: str) -> tuple[str, str]: ...


def why_blocked(queue: Queue, jobs: Jobs, restarts: bool) -> str:
    """Return why none of a queue's open runs will start by itself, in words; empty where one may, or trains.

    Only runs whose teachers are settled count: others wait for them. ``restarts``: who asks starts lost jobs again.
    """
    store = Store(Path(queue.store))
    settled = store.done_ids() | store.failed_ids()
    ready = [job for job in queue.jobs if settled.issuperset(job.all_needs)]
    run_ids = [k for job in ready for k in job.run_ids if k not in settled]
    without_job, reasons = jobs.runs_without_job() if run_ids else set(), dict[str, None]()
    for run_id in run_ids:
        if run_id in without_job:
            if restarts:
                return ""
            reasons["they have no job: run the sweep again"] = None
            continue
        state, remark = jobs.scheduled(run_id)
        reason = remark.rpartition(", job ")[0]
        if state != "pending" or not any(word in reason.lower() for word in HELD):
            return ""
        reasons[f"held by SLURM: {reason}"] = None
    return "" if any(map(store.is_running, run_ids)) else ", ".join(reasons)


def why_blocked_in_slurm(queue: Queue, is_watched: bool) -> str:
    """Return the same as seen by a job, which starts no other; empty too where SLURM does not answer.

    ``is_watched``: whether somebody starts lost jobs again.
    """
    try:
        notes = array_jobs.ArrayJobs(Store(Path(queue.store))).read()
        live = array_jobs.by_run(notes, array_jobs.squeue(notes))
    except UserError:
        return ""
    return why_blocked(queue, _LiveJobs(queue, live), restarts=is_watched)


@dataclass(frozen=True)
class _LiveJobs:
    queue: Queue
    live: dict[str, JobState]  # by run

    def runs_without_job(self) -> set[str]:
        return set(self.queue.run_ids - self.live.keys())

    def scheduled(self, run_id: str) -> tuple[str, str]:
        job = self.live[run_id]
        return job.state.lower(), f"{job.reason}, job {job.job_id}"

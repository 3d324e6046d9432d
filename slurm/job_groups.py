"""Groups of jobs that go into one array: they ask for the same resources and wait for the same teachers."""

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from harness.spec.teacher_order import teacher_levels
from slurm.attempt_notes import asked_at_submission
from slurm.earlier_starts import EarlierStarts
from slurm.node_order import node_order
from slurm.profiles import Resources
from slurm.queue import Queue, QueuedJob, QueuedRun


@dataclass(frozen=True)
class SlurmJob:
    """A job of SLURM: one of a queue's jobs, or several that share a node."""

    jobs: tuple[QueuedJob, ...]
    resources: Resources

    @property
    def runs(self) -> tuple[QueuedRun, ...]:
        return tuple(run for job in self.jobs for run in job.runs)

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(run.run_id for run in self.runs)

    @property
    def packs(self) -> int:
        """The packs that one process trains at most."""
        return max(job.packs for job in self.jobs)

    def order(self, queue: Queue, stage: str | None, earlier: EarlierStarts | None = None) -> dict[str, Any]:
        """Return what the job is told to do, as plain values.

        ``stage``: the folder of a node to copy the data to; ``earlier``: the starts of its runs that have ended.
        """
        asked = self.resources
        given: dict[str, Any] = {"threads": asked.cpus_per_task, "engine": asked.engine, "zero_stage": asked.zero_stage}
        orders = [
            replace(
                queue.order(job.run_ids), stage=stage, asked=asked_at_submission(asked, earlier, job.run_ids), **given
            )
            for job in self.jobs
        ]
        plain = [order.to_json() for order in orders]
        return node_order(plain, asked.jobs_per_node) if asked.jobs_per_node > 1 else plain[0]


def job_groups(
    jobs: Sequence[QueuedJob], done: Set[str], resources: Callable[[QueuedJob], Resources]
) -> Iterator[tuple[list[SlurmJob], tuple[str, ...]]]:
    """Yield the jobs of one array and the teachers' runs that they wait for: teachers first.

    So the job ids of teachers are known when their students are submitted.
    """
    levels = teacher_levels({k: job.all_needs for job in jobs for k in job.run_ids})
    groups: dict[tuple[int, Resources, tuple[str, ...]], list[QueuedJob]] = {}
    for job in jobs:
        teacher_runs = tuple(k for k in job.all_needs if k not in done)
        level = levels[job.run_ids[0]] + 1 if teacher_runs else 0
        groups.setdefault((level, resources(job), teacher_runs), []).append(job)
    for (_, asked, teacher_runs), members in sorted(groups.items(), key=lambda item: item[0][0]):
        yield list(_on_nodes(members, asked)), teacher_runs


def _on_nodes(jobs: Sequence[QueuedJob], resources: Resources) -> Iterator[SlurmJob]:
    """Yield the jobs of SLURM. Jobs of one pair share a node, as they end at about the same time."""
    number = resources.jobs_per_node
    alike = sorted(jobs, key=lambda job: (job.student, job.teacher or "")) if number > 1 else jobs
    for first in range(0, len(alike), number):
        yield SlurmJob(tuple(alike[first : first + number]), resources)

"""Groups of jobs that go into one array: they ask for the same resources and wait for the same teachers."""

from collections.abc import Callable, Iterator, Sequence, Set

from harness.spec.teacher_order import teacher_levels
from slurm.profiles import Resources
from slurm.queue import QueuedJob


def job_groups(
    jobs: Sequence[QueuedJob], done: Set[str], resources: Callable[[QueuedJob], Resources]
) -> Iterator[tuple[list[QueuedJob], tuple[str, ...]]]:
    """Yield jobs of one array and the teachers' runs that they wait for: teachers first.

    So the job ids of teachers are known when their students are submitted.
    """
    levels = teacher_levels({k: job.all_needs for job in jobs for k in job.run_ids})
    groups: dict[tuple[int, Resources, tuple[str, ...]], list[QueuedJob]] = {}
    for job in jobs:
        teacher_runs = tuple(k for k in job.all_needs if k not in done)
        level = levels[job.run_ids[0]] + 1 if teacher_runs else 0
        groups.setdefault((level, resources(job), teacher_runs), []).append(job)
    for (_, _, teacher_runs), members in sorted(groups.items(), key=lambda item: item[0][0]):
        yield members, teacher_runs

"""Makespan: the time until the last of several jobs has ended, which wait for free places and for each other."""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from harness.spec.teacher_order import teacher_levels


@dataclass(frozen=True)
class Job:
    """A job and the time that it takes."""

    run_ids: tuple[str, ...]
    needs: str | None  # a run whose job ends before this one starts, if it is one of these
    seconds: float
    also_needs: tuple[str, ...] = ()  # further such runs

    @property
    def all_needs(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.needs, *self.also_needs)))


def makespan(jobs: Iterable[Job], at_once: int, running: Sequence[Job] = ()) -> float:
    """Return the seconds until the last job has ended, when at most ``at_once`` (>= 1) run at the same time.

    ``running``: jobs that have places already, with the seconds that they still take.
    """
    jobs = list(jobs)
    ended = {k: job.seconds for job in running for k in job.run_ids}
    places = [job.seconds for job in running]
    places += [0.0] * (min(at_once, max(1, len(jobs) + len(running))) - len(running))
    heapq.heapify(places)
    teachers = {k for job in jobs for k in job.all_needs} & {k for job in jobs for k in job.run_ids}

    def ready(job: Job) -> float:
        return max((ended.get(k, 0.0) for k in job.all_needs), default=0.0)

    # Teachers in their order, those that have teachers later; then the others as their teachers end.
    levels = teacher_levels({k: job.all_needs for job in jobs for k in job.run_ids})
    of_level: dict[float, list[Job]] = {}
    for job in jobs:
        is_teacher = bool(teachers & set(job.run_ids))
        of_level.setdefault(levels[job.run_ids[0]] if is_teacher else inf, []).append(job)
    for _, group in sorted(of_level.items()):
        for job in sorted(group, key=ready):
            start = max(heapq.heappop(places), ready(job))
            heapq.heappush(places, start + job.seconds)
            ended |= dict.fromkeys(job.run_ids, start + job.seconds)
    return max(places)

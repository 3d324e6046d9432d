"""Makespan: the time until the last of several jobs has ended, which wait for free places and for each other."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """A job and the time that it takes."""

    run_ids: tuple[str, ...]
    needs: str | None  # a run whose job ends before this one starts, if it is one of these
    seconds: float


def makespan(jobs: Iterable[Job], at_once: int) -> float:
    """Return the seconds until the last job has ended, when at most ``at_once`` (>= 1) run at the same time."""
    jobs = list(jobs)
    ended: dict[str, float] = {}
    places = [0.0] * min(at_once, max(1, len(jobs)))
    teachers = {job.needs for job in jobs if job.needs} & {k for job in jobs for k in job.run_ids}
    for is_teacher in (True, False):  # teachers in their order, then the others as their teachers end
        group = [job for job in jobs if bool(teachers & set(job.run_ids)) == is_teacher]
        for job in sorted(group, key=lambda job: ended.get(job.needs or "", 0.0)):
            start = max(heapq.heappop(places), ended.get(job.needs or "", 0.0))
            heapq.heappush(places, start + job.seconds)
            ended |= dict.fromkeys(job.run_ids, start + job.seconds)
    return max(places)

"""Jobs: which packs of a plan train in one process.

Packs that differ in their seeds only share a job's start: the process, the dataset and the teacher. They are joined
where that is known to be cheaper, or as a profile or the command asks. Memory sets no limit: on a CPU a job holds one
pack at a time, and on a GPU members that do not fit wait.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

from harness.planning.cost.makespan import Job, makespan
from harness.planning.cost.plan import PlanCosts
from harness.planning.plan import Planned
from harness.spec.lines import grouped
from harness.spec.sweep_plan import Pack

# A start's least share of a pack's time. For less, packs stay apart: each can then go to whichever place is free.
WORTH_SHARING = 0.05


@dataclass(frozen=True)
class PlannedJob:
    """Packs that differ in their seeds only, for one process."""

    packs: tuple[Pack, ...]

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(k for pack in self.packs for k in pack.run_ids)

    @property
    def needs(self) -> str | None:
        """The run that trains their teacher."""
        return self.packs[0].needs

    @property
    def also_needs(self) -> tuple[str, ...]:
        """The runs that train their further teachers."""
        return self.packs[0].also_needs

    def timed(self, seconds: float) -> Job:
        """Return the job with the time that it takes."""
        return Job(self.run_ids, self.needs, seconds, self.also_needs)


def packs_to_do(planned: Planned, to_do: Collection[str]) -> list[Pack]:
    """Return the packs with runs to do, of each just these runs."""
    left = [replace(pack, run_ids=tuple(k for k in pack.run_ids if k in to_do)) for pack in planned.plan.packs]
    return [pack for pack in left if pack.run_ids]


def plan_jobs(packs: Sequence[Pack], at_once: int, costs: PlanCosts, packs_per_job: int | None) -> list[PlannedJob]:
    """Return the jobs that train packs, in their order; ``packs_per_job``: the number that the command asks for.

    Where no number is asked for, ``at_once`` jobs still run at the same time, and the last is expected to end no later
    than if all packs were apart.
    """
    groups = list(grouped(packs, key=lambda pack: _but_for_seed(pack, costs)).values())

    def in_jobs(count: int) -> list[PlannedJob]:
        """Return at least ``count`` jobs where no number is asked for."""
        jobs: list[PlannedJob] = []
        for group in groups:
            if number := packs_per_job or costs.device_of(group[0]).packs_per_job:
                jobs += _split(group, ceil(len(group) / number))
            else:
                share = ceil(len(group) * count / len(packs))
                jobs += _split(group, max(share, ceil(len(group) / _worth_joining(group[0], costs))))
        return jobs

    apart = in_jobs(len(packs))
    latest = _expected_end(apart, at_once, costs)
    count = at_once
    while count < len(packs):
        jobs = in_jobs(count)
        if _expected_end(jobs, at_once, costs) <= latest:
            return jobs
        count *= 2
    return apart


def _but_for_seed(pack: Pack, costs: PlanCosts) -> object:
    """Return a key that is equal for packs that can be joined."""
    learns = any(science.teacher for science in costs.sciences(pack))  # if not, the job needs no teacher
    return (pack.but_for_seed, learns) if pack.but_for_seed else pack.run_ids


def _worth_joining(pack: Pack, costs: PlanCosts) -> int:
    """Return how many packs like this one a job may train at most for the start that they share."""
    cost, time_limit = costs.of_pack(pack), costs.device_of(pack).time_limit_s
    if not cost.seconds or not cost.start or None in cost.bases:
        return 1
    if cost.start.mid < WORTH_SHARING * cost.seconds.mid:
        return 1
    if time_limit is None:
        return len(costs.planned.plan.packs)
    return max(1, int((time_limit - cost.start.high) / (cost.seconds.high - cost.start.high)))


def _expected_end(jobs: Sequence[PlannedJob], at_once: int, costs: PlanCosts) -> float:
    timed = [(job, costs.seconds(job.packs)) for job in jobs]
    return makespan([job.timed(seconds.mid if seconds else 0.0) for job, seconds in timed], at_once)


def _split(packs: Sequence[Pack], count: int) -> list[PlannedJob]:
    """Divide packs into ``count`` jobs, of which the first may have one more than the others."""
    least, more = divmod(len(packs), count)
    bounds = [i * least + min(i, more) for i in range(count + 1)]
    return [PlannedJob(tuple(packs[first:end])) for first, end in pairwise(bounds)]

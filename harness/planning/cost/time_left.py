"""Time left: until the last job of a sweep has ended, from what jobs are expected to take and what has been seen."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from harness.planning.cost.makespan import Job, makespan

FAITH_SECONDS = 5.0  # of training as expected, counted beside what has been seen: its first seconds tell little


class ExpectedPack(NamedTuple):
    """Runs that train together, and the seconds that their training is expected to take."""

    run_ids: tuple[str, ...]
    training: float
    is_known: bool = True  # if not, past runs tell nothing of it, and the seconds are only good for comparison


class ExpectedJob(NamedTuple):
    """A job, with the seconds from its start to the first image where these are known apart from the training."""

    packs: tuple[ExpectedPack, ...]
    start: float = 0.0
    needs: tuple[str, ...] = ()  # the runs that train its teachers

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(k for pack in self.packs for k in pack.run_ids)

    @property
    def training(self) -> float:
        return sum(pack.training for pack in self.packs)

    @property
    def is_known(self) -> bool:
        return all(pack.is_known for pack in self.packs)


class SeenRun(NamedTuple):
    """A run that has begun, as far as it has been seen."""

    is_over: bool = False
    fraction: float = 0.0  # of its training
    left: float | None = None  # seconds, at its own pace since its job began
    age: float = 0.0  # seconds since it was first seen in training
    process: tuple[float, float] | None = None  # of a run with a record: when its process began, and its own end


def seconds_left(jobs: Sequence[ExpectedJob], seen: Mapping[str, SeenRun], at_once: int) -> float | None:
    """Return the seconds until the last job ends, when at most ``at_once`` run together; None while nothing is known.

    Each job counts with its expected seconds, times the ratio of what has been seen so far to what was expected of it:
    one ratio for jobs that past runs tell of, and one for the others.
    """
    of_known, of_unknown = [job for job in jobs if job.is_known], [job for job in jobs if not job.is_known]
    known = _ratio(of_known, seen, FAITH_SECONDS) if of_known else None
    unknown = _ratio(of_unknown, seen, 0.0)
    if unknown is None and sum(job.training for job in of_unknown) < sum(job.training for job in of_known):
        unknown = known  # a guess of the smaller part
    waiting, running = list[Job](), list[Job]()
    for job in jobs:
        if not all(_is_over(pack, seen) for pack in job.packs):
            if (ratio := known if job.is_known else unknown) is None:
                return None
            left = Job(job.run_ids, next(iter(job.needs), None), _left(job, seen, ratio), job.needs[1:])
            (running if _has_begun(job, seen) else waiting).append(left)
    return makespan(waiting, at_once, running)


def _ratio(jobs: Iterable[ExpectedJob], seen: Mapping[str, SeenRun], faith: float) -> float | None:
    """Return seen seconds to expected ones, beside some that went as expected; None where nothing has been seen."""
    parts = [part for job in jobs for part in _parts(job, seen)]
    took, foretold = faith + sum(part[0] for part in parts), faith + sum(part[1] for part in parts)
    return took / foretold if foretold else None


def _parts(job: ExpectedJob, seen: Mapping[str, SeenRun]) -> Iterator[tuple[float, float]]:
    """Yield (seen, expected) seconds of training: of the whole job, or of what its packs have trained so far."""
    if processes := [run.process for k in job.run_ids if (run := seen.get(k)) and run.process]:
        begins, ends = zip(*processes, strict=True)
        if all(_is_over(pack, seen) for pack in job.packs) and min(begins) == max(begins):  # not resumed
            yield max(0.0, max(ends) - min(begins) - job.start), job.training
        return
    for pack in job.packs:
        if (trained := _trained(pack, seen)) is not None:
            yield trained, _fraction(pack, seen) * pack.training


def _left(job: ExpectedJob, seen: Mapping[str, SeenRun], ratio: float) -> float:
    """Return the seconds that a job still takes."""
    begun = [pack for pack in job.packs if _members(pack, seen)]
    left = 0.0 if begun else job.start
    for pack in job.packs:
        expected = (1 - _fraction(pack, seen)) * pack.training * ratio
        if pack not in begun:
            left += expected
        elif not _is_over(pack, seen):
            left += _left_of_running(pack, seen, expected, job.start)
    return left


def _left_of_running(pack: ExpectedPack, seen: Mapping[str, SeenRun], expected: float, start: float) -> float:
    """Return the seconds left of a pack in training: the more of it has been seen, the more its own pace counts."""
    if (trained := _trained(pack, seen)) is None:
        age = max(run.age for run in _members(pack, seen))
        return max(0.0, start + expected - age)
    at_its_pace = max(run.left or 0.0 for run in _members(pack, seen))
    weight = trained / (trained + FAITH_SECONDS) if pack.is_known else 1.0
    return weight * at_its_pace + (1 - weight) * expected


def _trained(pack: ExpectedPack, seen: Mapping[str, SeenRun]) -> float | None:
    """Return the seconds that a pack in training has trained, at its own pace; None where that is not known yet."""
    fraction = _fraction(pack, seen)
    left = [run.left for run in _members(pack, seen) if not run.is_over and run.left is not None]
    return max(left) * fraction / (1 - fraction) if left and 0 < fraction < 1 else None


def _fraction(pack: ExpectedPack, seen: Mapping[str, SeenRun]) -> float:
    """Return how much of a pack is trained. Its runs go in step, so that those that are over early do not count."""
    going = [run.fraction for run in _members(pack, seen) if not run.is_over]
    return min(going) if going else float(_is_over(pack, seen))


def _is_over(pack: ExpectedPack, seen: Mapping[str, SeenRun]) -> bool:
    return all(k in seen and seen[k].is_over for k in pack.run_ids)


def _has_begun(job: ExpectedJob, seen: Mapping[str, SeenRun]) -> bool:
    return any(_members(pack, seen) for pack in job.packs)


def _members(pack: ExpectedPack, seen: Mapping[str, SeenRun]) -> list[SeenRun]:
    return [seen[k] for k in pack.run_ids if k in seen]

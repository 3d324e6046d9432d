"""The time left of a sweep, in simulated sweeps: what is shown beside what is left in truth."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest

from harness.planning.cost.makespan import Job, makespan
from harness.planning.cost.time_left import ExpectedJob, ExpectedPack, SeenRun, seconds_left

START = 4.0  # seconds from the start of a job to its first image


class Training(NamedTuple):
    """A job of one run, and the seconds that it trains in truth."""

    run_id: str
    seconds: float
    needs: tuple[str, ...] = ()


class Moment(NamedTuple):
    """A moment of a simulated sweep: the seconds shown as left, and those that are."""

    at: float
    shown: float | None
    left: float
    ended: int


def simulated(jobs: Sequence[Training], foretold: Sequence[float], at_once: int, is_known: bool = True) -> list[Moment]:
    """Return what is shown every five seconds of a sweep whose jobs start in their order when their teachers ended."""
    begins, ends = dict[str, float](), dict[str, float]()
    places = [0.0] * at_once
    for job in jobs:
        places.sort()
        begins[job.run_id] = max(places[0], *(ends[k] for k in job.needs), 0.0)
        places[0] = ends[job.run_id] = begins[job.run_id] + START + job.seconds
    last = max(ends.values())
    start = START if is_known else 0.0
    expected = [
        ExpectedJob((ExpectedPack((job.run_id,), seconds, is_known),), start, job.needs)
        for job, seconds in zip(jobs, foretold, strict=True)
    ]

    def seen_at(now: float) -> dict[str, SeenRun]:
        seen = dict[str, SeenRun]()
        for job in jobs:
            if (begin := begins[job.run_id]) <= now:
                trained = max(0.0, now - begin - START)
                fraction = min(1.0, trained / job.seconds)
                left = job.seconds - trained if trained else None
                is_over = now >= ends[job.run_id]
                process = (begin, ends[job.run_id]) if is_over else None
                seen[job.run_id] = SeenRun(is_over, fraction, left, now - begin, process)
        return seen

    return [
        Moment(
            at, seconds_left(expected, seen := seen_at(at), at_once), last - at, sum(s.is_over for s in seen.values())
        )
        for at in range(0, int(last), 5)
    ]


# A teacher, and ten runs of seven lengths that wait for it.
LENGTHS = (60.0, 20.0, 90.0, 45.0, 30.0, 120.0, 75.0, 60.0, 20.0, 30.0)
SWEEP = [Training("t", 80.0), *(Training(f"s{i}", seconds, ("t",)) for i, seconds in enumerate(LENGTHS))]
EXACT = [job.seconds for job in SWEEP]


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_after_the_first_run_the_time_left_is_right_within_an_eighth(factor: float, at_once: int) -> None:
    """However much too short or too long all estimates are: runs differ in length, wait for their teacher, and start
    anew each time. Before, elapsed time over the finished part showed more than twice the truth."""
    moments = simulated(SWEEP, [seconds * factor for seconds in EXACT], at_once)
    later = [m for m in moments if m.ended]
    assert len(later) > 30
    for moment in later:
        assert moment.shown == pytest.approx(moment.left, rel=1 / 8, abs=10), moment


def test_with_good_estimates_it_is_right_from_the_start() -> None:
    for moment in simulated(SWEEP, EXACT, 2):
        assert moment.shown == pytest.approx(moment.left, rel=0.03, abs=3), moment


def test_estimates_that_scatter_are_corrected_on_average() -> None:
    scattered = [seconds * (0.8, 1.3, 1.1, 0.7)[i % 4] for i, seconds in enumerate(EXACT)]
    for moment in (m for m in simulated(SWEEP, scattered, 2) if m.ended):
        assert moment.shown == pytest.approx(moment.left, rel=0.25, abs=10), moment


def test_without_estimates_there_is_no_number_until_something_has_been_seen() -> None:
    """Jobs then compare by their images, and what the first has taken gives the scale."""
    images = [seconds * 700 for seconds in EXACT]
    moments = simulated(SWEEP, images, 2, is_known=False)
    assert moments[0].shown is None
    assert all(m.shown is not None for m in moments if m.at > START + 5)
    for moment in (m for m in moments if m.ended):
        assert moment.shown == pytest.approx(moment.left, rel=0.2, abs=10), moment


def test_jobs_that_nothing_is_known_of_have_a_ratio_of_their_own() -> None:
    known = ExpectedJob((ExpectedPack(("a",), 60.0),))
    unknown = [ExpectedJob((ExpectedPack((k,), 60.0, is_known=False),)) for k in "bc"]
    seen = {"a": SeenRun(True, process=(0.0, 60.0)), "b": SeenRun(False, 0.1, 270.0)}
    assert seconds_left([known, *unknown], seen, 1) == pytest.approx(270 + 300)


def test_a_teacher_alone_does_not_tell_what_its_students_take() -> None:
    known = ExpectedJob((ExpectedPack(("a",), 60.0),))
    unknown = [ExpectedJob((ExpectedPack((k,), 40.0, is_known=False),)) for k in "bc"]
    seen = {"a": SeenRun(True, process=(0.0, 60.0))}
    assert seconds_left([known, *unknown], seen, 1) is None
    assert seconds_left([known, unknown[0]], seen, 1) == pytest.approx(40), "a guess of the smaller part"


def test_a_run_that_failed_or_was_resumed_tells_nothing_of_the_others() -> None:
    jobs = [ExpectedJob((ExpectedPack((k,), 100.0),)) for k in "abc"]
    assert seconds_left(jobs, {"a": SeenRun(is_over=True)}, 1) == pytest.approx(200)


def test_packs_of_a_job_follow_one_another() -> None:
    job = ExpectedJob((ExpectedPack(("a", "b"), 50.0), ExpectedPack(("c",), 30.0)), start=5.0)
    left: Callable[..., float | None] = lambda **seen: seconds_left([job], seen, 1)  # noqa: E731
    assert left() == pytest.approx(85)
    assert left(a=SeenRun(age=3.0), b=SeenRun(age=3.0)) == pytest.approx(82)
    both = SeenRun(False, 0.5, 25.0)
    assert left(a=both, b=both) == pytest.approx(55)
    assert left(a=SeenRun(is_over=True), b=both) == pytest.approx(55), "one of them has failed"
    assert left(a=SeenRun(is_over=True), b=SeenRun(is_over=True)) == pytest.approx(30)


def test_what_runs_already_keeps_its_place() -> None:
    running = [Job(("t",), None, 10.0), Job(("a",), None, 3.0)]
    assert makespan([Job(("b",), "t", 5.0), Job(("c",), None, 4.0)], 2, running) == 15.0
    assert makespan([], 2, running) == 10.0
    assert makespan([Job(("c",), None, 4.0)], 1, running[:1]) == 14.0

"""The tests of a claim: differences between two methods, and slopes of one's advantage over the teacher's size.

Holm's correction covers all of a claim's tests together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.reporting import statistics
from harness.reporting.comparison import Comparison, Row
from harness.reporting.gap_slopes import GapLine, advantage
from harness.reporting.statistics import Interval, Spread
from harness.spec.lines import Line
from harness.spec.recipe import Closed

ERROR = 0.01  # of all tests of a claim together


class ComparedMethods(Closed):
    """Two methods of a pair, of which the claim says that one is better."""

    teacher: str
    student: str
    better: str
    than: str

    @property
    def lines(self) -> tuple[Line, Line]:
        """The two lines of the table that are compared."""
        return Line(self.teacher, self.student, self.better), Line(self.teacher, self.student, self.than)


class ClaimedSlope(Closed):
    """Two methods of a student, of which the claim says that one's advantage grows with the teacher's size."""

    student: str
    method: str
    over: str


@dataclass(frozen=True)
class Outcome:
    """The test of one comparison."""

    methods: ComparedMethods
    difference: Spread | None
    interval: Interval | None  # 95 %
    p: float | None
    p_holm: float  # 1 where nothing can be tested

    @property
    def verdict(self) -> Literal["better", "worse", "not told apart"]:
        """The verdict on the method that is claimed to be better."""
        if self.difference is None or self.p_holm >= ERROR:
            return "not told apart"
        return "better" if self.difference.mean > 0 else "worse"


@dataclass(frozen=True)
class SlopeOutcome:
    """The tests of one slope: over seeds and over teachers, of which the less certain one counts."""

    claimed: ClaimedSlope
    line: GapLine
    p: float | None
    p_holm: float  # 1 where nothing can be tested

    @property
    def verdict(self) -> Literal["grows", "shrinks", "not told apart"]:
        """The verdict on the advantage that is claimed to grow."""
        if self.line.slope is None or self.p_holm >= ERROR:
            return "not told apart"
        return "grows" if self.line.slope.mean > 0 else "shrinks"


def outcomes_of(
    comparisons: Sequence[ComparedMethods], slopes: Sequence[ClaimedSlope], rows: Mapping[Line, Row],
    comparison: Comparison,
) -> tuple[tuple[Outcome, ...], tuple[SlopeOutcome, ...]]:  # fmt: skip
    """Test each comparison by the paired t-test and each slope by its two t-tests, with Holm's correction over all."""
    spreads = [Spread.paired(*(rows[line].by_seed for line in methods.lines)) for methods in comparisons]
    lines = [advantage(comparison, slope.student, slope.method, slope.over) for slope in slopes]
    ps = [*map(statistics.p_value, spreads), *map(_p, lines)]
    corrected = statistics.holm([1.0 if p is None else p for p in ps])
    tests = list(zip(ps, corrected, strict=True))
    of_comparisons = zip(comparisons, spreads, tests[: len(spreads)], strict=True)
    of_slopes = zip(slopes, lines, tests[len(spreads) :], strict=True)
    return (
        tuple(Outcome(methods, spread, statistics.interval(spread), *test) for methods, spread, test in of_comparisons),
        tuple(SlopeOutcome(slope, line, *test) for slope, line, test in of_slopes),
    )


def _p(line: GapLine) -> float | None:
    """Return the greater of a slope's two p values; None where one of them has nothing to test."""
    over_seeds, over_teachers = line.over_seeds, line.over_teachers
    return max(over_seeds.p, over_teachers.p) if over_seeds and over_teachers else None

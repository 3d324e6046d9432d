"""Statistics over seeds: intervals, the paired test, Holm's correction, equivalence, power. Pure functions of numbers.

Only the distributions of scipy.special are needed: scipy.stats would take a second to import.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Literal

ERROR = 0.05  # probability that a decision is wrong; the level of intervals is one minus it
POWER = 0.8
FEWEST = 3  # seeds for which an interval is shown: that of two is 9 standard deviations to each side
MARGIN = 0.5  # default points of the score within which two means count as equal
MOST_SEEDS = 10_000  # as many as a sweep may have
_EQUAL = 1e-9  # points: values nearer than this are one value, and t tests need two


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over n values; std is None for fewer than two."""

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """Return the spread of the values; None where there are none."""
        values = list(values)
        if not values:
            return None
        return cls(statistics.fmean(values), _std(values) if len(values) > 1 else None, len(values))

    @classmethod
    def paired(cls, first: Mapping[int, float], second: Mapping[int, float]) -> "Spread | None":
        """Return the spread of first minus second over the seeds that both have. Both map a seed to its value."""
        return cls.of(value - second[seed] for seed, value in first.items() if seed in second)

    @property
    def error(self) -> float | None:
        """The mean's standard error; None where nothing can be tested: one value, or all values equal."""
        return self.std / math.sqrt(self.n) if self.std is not None and self.std > _EQUAL else None

    @property
    def degrees(self) -> int:
        """The degrees of freedom of that error."""
        return self.n - 1


def _std(values: Sequence[float]) -> float:
    """Return the value of ``statistics.stdev``, rounded once as there, but without its slow fractions.

    The values are integers times one power of two. So is the root, to 59 bits or more; its last bit is set where the
    division or the root leaves a remainder.
    """
    ratios = [value.as_integer_ratio() for value in values]
    unit = max([denominator for _, denominator in ratios])
    whole = [numerator * (unit // denominator) for numerator, denominator in ratios]
    n = len(whole)
    squares, divisor = n * sum(map(mul, whole, whole)) - sum(whole) ** 2, n * (n - 1) * unit * unit
    shift = max(0, 60 + (divisor.bit_length() - squares.bit_length()) // 2)
    quotient, rest = divmod(squares << 2 * shift, divisor)
    root = math.isqrt(quotient)
    return (root | (root * root != quotient or rest != 0)) / (1 << shift)


@dataclass(frozen=True)
class Slope:
    """The slope of a least-squares line, with its standard error by the points' scatter about the line."""

    mean: float
    error: float | None  # None where nothing can be tested: two points, or all of them on the line
    degrees: int  # of freedom: the points but two

    @classmethod
    def of(cls, xs: Sequence[float], ys: Sequence[float]) -> "Slope | None":
        """Return the slope of y over x; None for fewer than two different x."""
        if len(set(xs)) < 2:
            return None
        x_mean, y_mean, degrees = statistics.fmean(xs), statistics.fmean(ys), len(xs) - 2
        squares = math.fsum((x - x_mean) ** 2 for x in xs)
        slope = math.fsum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / squares
        residuals = (y - y_mean - slope * (x - x_mean) for x, y in zip(xs, ys, strict=True))
        scatter = math.sqrt(math.fsum(r * r for r in residuals) / degrees) if degrees else 0.0
        return cls(slope, scatter / math.sqrt(squares) if scatter > _EQUAL else None, degrees)


Estimate = Spread | Slope


@dataclass(frozen=True)
class Interval:
    """An interval that includes its ends."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The t-test of a mean difference, which is paired, or of a slope."""

    interval: Interval | None  # 95 %
    p: float  # two-sided
    p_holm: float  # corrected over the methods of the pair, or the lines of the table


@dataclass(frozen=True)
class Verdict:
    """The outcome of a comparison with a published mean."""

    text: Literal["reproduced", "not reproduced", "undecided"]
    interval: Interval | None  # 90 %, of ours minus theirs in points


def interval(spread: Estimate | None, error: float = ERROR) -> Interval | None:
    """Return Student's t interval, which misses the mean with probability ``error``; None: nothing can be tested."""
    if spread is None or spread.error is None:
        return None
    from scipy.special import stdtrit

    half = float(stdtrit(spread.degrees, 1 - error / 2)) * spread.error
    return Interval(spread.mean - half, spread.mean + half)


def shown_interval(spread: Spread | None) -> Interval | None:
    """Return the 95 % interval of a mean as tables show it: from ``FEWEST`` seeds on."""
    return interval(spread) if spread is not None and spread.n >= FEWEST else None


def percent_interval(spread: Spread | None) -> Interval | None:
    """Return the same of a score in %, without the values beyond 0 and 100 that no score has."""
    ends = shown_interval(spread)
    return ends and Interval(max(0.0, ends.low), min(100.0, ends.high))


def p_value(spread: Estimate | None) -> float | None:
    """Return p of the two-sided t-test of the mean against 0; for paired differences this is the paired t-test."""
    if spread is None or spread.error is None:
        return None
    from scipy.special import stdtr

    return 2 * float(stdtr(spread.degrees, -abs(spread.mean) / spread.error))


def p_equivalent(spread: Spread | None, margin: float) -> float | None:
    """Return p of two one-sided t-tests (Schuirmann 1987): small when the mean lies within ``margin`` of 0."""
    if spread is None or spread.error is None:
        return None
    from scipy.special import stdtr

    return float(stdtr(spread.n - 1, (abs(spread.mean) - margin) / spread.error))


def verdict(ours: Spread, published: float, margin: float) -> Verdict:
    """Decide whether our mean is within ``margin`` of theirs (reproduced) or outside (not), each by tests at 5 %.

    Two one-sided t-tests find it within when the 90 % interval of the difference lies inside the margin; it is outside
    when the interval lies beyond it. Theirs counts as exact: no source prints both deviation and number of runs.
    """
    ends = interval(Spread(ours.mean - published, ours.std, ours.n), 2 * ERROR)
    if ends is None or ends.low <= -margin <= ends.high or ends.low <= margin <= ends.high:
        return Verdict("undecided", ends)
    return Verdict("reproduced" if -margin < ends.low < margin else "not reproduced", ends)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values corrected for multiple tests (Holm 1979), in the same order.

    statsmodels' ``multipletests(method="holm")`` gives the same; five lines are not worth that dependency.
    """
    corrected, least = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        least = max(least, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = least
    return corrected


def differences(spreads: Sequence[Estimate | None]) -> list[Difference | None]:
    """Return the t-test of each mean difference or slope, Holm-corrected over all that can be tested."""
    tested = [(i, p) for i, spread in enumerate(spreads) if (p := p_value(spread)) is not None]
    tests: list[Difference | None] = [None] * len(spreads)
    for (i, p), p_holm in zip(tested, holm([p for _, p in tested]), strict=True):
        if (ends := interval(spreads[i])) is not None:
            tests[i] = Difference(ends, p, p_holm)
    return tests


def seeds_needed(spread: Spread | None, error: float = ERROR) -> int | None:
    """Return the fewest seeds with which a two-sided paired t-test finds this mean difference with ``POWER``.

    Assume that more seeds would have this difference and this standard deviation. None: no estimate, or more than
    ``MOST_SEEDS``.
    """
    if spread is None or spread.std is None or spread.error is None or abs(spread.mean) < _EQUAL:
        return None
    from scipy.special import nctdtr, ndtri, stdtrit

    effect = abs(spread.mean) / spread.std
    # The normal approximation never needs more, and nearly as many.
    n = max(2, math.ceil(float(ndtri(1 - error / 2) + ndtri(POWER)) ** 2 / effect**2))
    while n <= MOST_SEEDS:
        if 1 - nctdtr(n - 1, effect * math.sqrt(n), stdtrit(n - 1, 1 - error / 2)) >= POWER:
            return n
        n += 1
    return None

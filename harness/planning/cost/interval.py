"""A figure with its interval."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from statistics import median


@dataclass(frozen=True)
class Interval:
    low: float
    mid: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float], widening: float) -> "Interval":
        """The median of what was measured, from the least to the greatest of it, and at least from median/``widening``
        to median*``widening``: a few runs do not show how far apart runs can lie.

        ``values``: at least one.
        """
        found = list(map(float, values))
        mid = median(found)
        return cls(min(*found, mid / widening), mid, max(*found, mid * widening))

    @classmethod
    def sum(cls, ranges: "Iterable[Interval]") -> "Interval":
        """Bounds add up as if all were fast or slow together, as runs on one machine are."""
        return reduce(add, ranges, cls(0.0, 0.0, 0.0))

    def __add__(self, other: "Interval") -> "Interval":
        return Interval(self.low + other.low, self.mid + other.mid, self.high + other.high)

    def __mul__(self, factor: float) -> "Interval":
        return Interval(self.low * factor, self.mid * factor, self.high * factor)

"""Intervals: an estimate with its bounds."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from statistics import median

from harness.store import json_files


@dataclass(frozen=True)
class Interval:
    __pydantic_config__ = json_files.CLOSED
    low: float
    mid: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float], widening: float) -> "Interval":
        """Return the median of at least one measured value, with their smallest and largest as bounds.

        The bounds are at least median/``widening`` and median*``widening``: a few runs do not show the whole spread.
        """
        measured = list(map(float, values))
        mid = median(measured)
        return cls(min(*measured, mid / widening), mid, max(*measured, mid * widening))

    @classmethod
    def sum(cls, ranges: "Iterable[Interval]") -> "Interval":
        """Return the sum; bounds add up as if all were fast or slow together, like runs on one machine."""
        return reduce(add, ranges, cls(0.0, 0.0, 0.0))

    def __add__(self, other: "Interval") -> "Interval":
        return Interval(self.low + other.low, self.mid + other.mid, self.high + other.high)

    def __mul__(self, factor: float) -> "Interval":
        return Interval(self.low * factor, self.mid * factor, self.high * factor)

"""The capacity gap in numbers: whether a method's gain over the undistilled student changes with the teacher's size.

A slope is in points per doubling of the teacher's parameters. It is tested twice: over seeds, which says what other
seeds under the same teachers would give, and over teachers, of which each size has one that all seeds share.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, NamedTuple

from harness.reporting import statistics
from harness.reporting.comparison import BASELINE, Comparison
from harness.reporting.statistics import ERROR, Difference, Slope, Spread
from harness.spec import models

OWN = "rekd"  # the method whose advantage over each other method is tested
LEAST = 3  # teachers of different sizes: two points are on a line whatever they are

Gains = Mapping[str, Mapping[int, float]]  # teacher -> seed -> points


@dataclass(frozen=True)
class GapLine:
    """A method's gain over another, by teacher, with the slope of the seeds that have all these teachers."""

    method: str
    other: str
    gains: Mapping[str, Spread]  # by teacher, over all seeds
    teachers: tuple[str, ...]  # of the slope: those with a gain
    seeds: tuple[int, ...]  # of the slope: those with a gain under each of its teachers
    left_out: tuple[int, ...]  # other seeds
    slope: Spread | None  # over seeds
    middle: float | None  # the line's gain at the mean of its teachers' log sizes
    over_seeds: Difference | None = None
    over_teachers: Difference | None = None  # of the seeds' mean gains
    seeds_needed: int | None = None  # total, to find this slope over seeds; None: no estimate

    @property
    def verdict(self) -> Literal["grows", "does not grow", "not told apart"]:
        """The gain's change with the teacher's size, if it is found over seeds and over teachers."""
        tests = (self.over_seeds, self.over_teachers)
        if self.slope is None or any(test is None or test.p_holm >= ERROR for test in tests):
            return "not told apart"
        return "grows" if self.slope.mean > 0 else "does not grow"


@dataclass(frozen=True)
class StudentGap:
    """One student under teachers of several sizes."""

    student: str
    teachers: Mapping[str, int]  # with its parameters, from the smallest to the largest
    gains: tuple[GapLine, ...]  # of each method over the undistilled student
    advantages: tuple[GapLine, ...]  # of ``OWN`` over each other method


class _Measured(NamedTuple):
    """The slopes of one line's gains."""

    teachers: tuple[str, ...]
    seeds: tuple[int, ...]
    over_seeds: Spread | None
    over_teachers: Slope | None
    middle: float | None


def student_gaps(comparison: Comparison) -> list[StudentGap]:
    """Return the gap of each student that has results and enough teachers of known size."""
    gaps = []
    for student in dict.fromkeys(row.student for row in comparison.rows):
        sizes, gains = teacher_sizes(comparison, student), _gains(comparison, student)
        if len(set(sizes.values())) < LEAST or not any(gains.values()):
            continue
        own = gains.get(OWN)
        others = {method: other for method, other in gains.items() if own and method != OWN}
        advantages = {(OWN, method): _minus(own or {}, other) for method, other in others.items()}
        over_student = {(method, BASELINE): of_method for method, of_method in gains.items()}
        gaps.append(StudentGap(student, sizes, _lines(over_student, sizes), _lines(advantages, sizes)))
    return gaps


def advantage(comparison: Comparison, student: str, method: str, over: str) -> GapLine:
    """Return a method's gain over another by teacher, with its slope, which is tested by itself."""
    rows = [row for row in comparison.rows if row.student == student]
    of_method, of_other = ({row.teacher: row.by_seed for row in rows if row.method == name} for name in (method, over))
    (line,) = _lines({(method, over): _minus(of_method, of_other)}, teacher_sizes(comparison, student))
    return line


def teacher_sizes(comparison: Comparison, student: str) -> dict[str, int]:
    """Return a student's teachers with their numbers of parameters, from the smallest to the largest."""
    return sizes_of(row.teacher for row in comparison.rows if row.student == student)


def sizes_of(teachers: Iterable[str]) -> dict[str, int]:
    """Return teachers with their numbers of parameters, from the smallest to the largest.

    The size of a timm or torchvision model is not known without building it; such teachers are left out.
    """
    known = set(filter(models.has_model_facts, teachers))
    return dict(sorted(((t, models.model_facts(t).params) for t in known), key=lambda item: (item[1], item[0])))


def _gains(comparison: Comparison, student: str) -> dict[str, Gains]:
    """Return method -> gains over the undistilled student of the same seed."""
    rows = [row for row in comparison.rows if row.student == student]
    alone = {row.teacher: row.by_seed for row in rows if row.method == BASELINE}
    gains: dict[str, dict[str, Mapping[int, float]]] = {}
    for row in rows:
        if row.method != BASELINE:
            by_seed = _by_seed(row.by_seed, alone.get(row.teacher, {}))
            gains.setdefault(row.method, {}).update({row.teacher: by_seed} if by_seed else {})
    return dict(gains)


def _minus(first: Gains, second: Gains) -> Gains:
    return {t: by_seed for t in first if (by_seed := _by_seed(first[t], second.get(t, {})))}


def _by_seed(first: Mapping[int, float], second: Mapping[int, float]) -> dict[int, float]:
    """Return first minus second at the seeds that both have."""
    return {seed: value - second[seed] for seed, value in first.items() if seed in second}


def _lines(gains: Mapping[tuple[str, str], Gains], sizes: Mapping[str, int]) -> tuple[GapLine, ...]:
    """Return a line for each pair of methods, tested with Holm's correction over all of them."""
    measured = [_measured(of_line, sizes) for of_line in gains.values()]
    over_seeds = statistics.differences([m.over_seeds for m in measured])
    over_teachers = statistics.differences([m.over_teachers for m in measured])
    family = max(1, sum(test is not None for test in over_seeds))
    return tuple(
        GapLine(
            method,
            other,
            gains={t: spread for t in sizes if (spread := Spread.of(of_line.get(t, {}).values()))},
            teachers=m.teachers,
            seeds=m.seeds,
            left_out=tuple(sorted({seed for t in m.teachers for seed in of_line[t]} - set(m.seeds))),
            slope=m.over_seeds,
            middle=m.middle,
            over_seeds=of_seeds,
            over_teachers=of_teachers,
            seeds_needed=statistics.seeds_needed(m.over_seeds, ERROR / family),
        )
        for ((method, other), of_line), m, of_seeds, of_teachers in zip(
            gains.items(), measured, over_seeds, over_teachers, strict=True
        )
    )


def _measured(gains: Gains, sizes: Mapping[str, int]) -> _Measured:
    """Fit the gains of the seeds that have one under every teacher with any: these have the same slope in both ways."""
    teachers = tuple(t for t in sizes if gains.get(t))
    seeds = tuple(sorted(set.intersection(*(set(gains[t]) for t in teachers)))) if teachers else ()
    if len({sizes[t] for t in teachers}) < LEAST or not seeds:
        return _Measured(teachers, seeds, None, None, None)
    doublings = [math.log2(sizes[t]) for t in teachers]
    fits = (Slope.of(doublings, [gains[t][seed] for t in teachers]) for seed in seeds)
    means = [fmean(gains[t][seed] for seed in seeds) for t in teachers]
    over_seeds = Spread.of(fit.mean for fit in fits if fit)
    return _Measured(teachers, seeds, over_seeds, Slope.of(doublings, means), fmean(means))

"""The capacity gap: a student's score, and its gain by each method, against the size of its teacher."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from harness.phrases import file_name
from harness.reporting.comparison import BASELINE, Comparison
from harness.reporting.figures.style import COLUMN, PAGE, Drawing, Figure, method_looks, pair_title, text
from harness.reporting.gap_slopes import GapLine, StudentGap, student_gaps, teacher_sizes
from harness.reporting.statistics import Spread, interval

Point = tuple[int, float, float]  # a teacher's parameters, mean and half of the 95 % interval
APART = 1.03  # factor between the places of methods under one teacher, so that their bars do not cover each other
HEIGHT = 2.6  # inches, of which the teachers' names take a part
RIGHT = " Right: the gain over the student alone, paired by seed, with its least-squares line."


def drawings(comparison: Comparison) -> Iterator[Drawing]:
    """Yield a figure per student that has two teachers of different size; with three, it has the gains' lines too."""
    shown = comparison.contents.task.shown
    gaps = {gap.student: gap for gap in student_gaps(comparison)}
    for student in dict.fromkeys(row.student for row in comparison.rows):
        if lines := points(comparison, student):
            gap = gaps.get(student)
            yield Drawing(
                file_name("capacity_gap", student),
                f"Last-epoch {shown} of {student} against the size of its teacher; bars: 95 % intervals of the mean "
                f"over seeds, by Student's t.{RIGHT if gap else ''}",
                (PAGE if gap else COLUMN, HEIGHT),
                partial(_draw, comparison, student, lines, gap),
                pair_title(comparison, student),
            )


def points(comparison: Comparison, student: str) -> dict[str, list[Point]]:
    """Return method -> points, from the smallest teacher to the largest; {} when all teachers have one size.

    Teachers of unknown size are left out.
    """
    sizes, lines = teacher_sizes(comparison, student), dict[str, list[Point]]()
    for row in comparison.rows:
        if row.student == student and row.method != BASELINE and row.last and row.teacher in sizes:
            lines.setdefault(row.method, []).append(_point(sizes[row.teacher], row.last))
    different = {size for line in lines.values() for size, _, _ in line}
    return {method: sorted(line) for method, line in lines.items()} if len(different) > 1 else {}


def _point(size: int, spread: Spread) -> Point:
    ends = interval(spread)
    return size, spread.mean, ends.high - spread.mean if ends else 0.0


def _draw(
    comparison: Comparison, student: str, lines: Mapping[str, list[Point]], gap: StudentGap | None, figure: Figure
) -> None:
    looks = method_looks(comparison)
    left, *right = figure.subplots(1, 2 if gap else 1, squeeze=False)[0]
    for i, (method, line) in enumerate(lines.items()):
        size, mean, half = zip(*line, strict=True)
        left.errorbar(
            _apart(size, i, lines), mean, half, label=text(method), capsize=2, elinewidth=0.8, **looks[method]
        )
    row = next(row for row in comparison.rows if row.student == student)
    if row.student_score is not None:
        left.axhline(row.student_score, color="0.4", linestyle=":", label=text(f"{student} alone"))
    left.set_ylabel(f"{comparison.contents.task.shown} of {text(student)} (%)")
    if gap:
        _draw_gains(right[0], gap, list(lines), looks)
        right[0].set_ylabel("gain (points)")
    for axes in (left, *right):
        _set_teachers(axes, teacher_sizes(comparison, student))


def _draw_gains(axes: Any, gap: StudentGap, methods: Sequence[str], looks: Mapping[str, dict[str, Any]]) -> None:
    axes.axhline(0, color="0.4", linestyle=":")
    for line in gap.gains:
        if line.gains:
            i, look = methods.index(line.method), looks[line.method]
            size, mean, half = zip(*(_point(gap.teachers[t], gain) for t, gain in line.gains.items()), strict=True)
            axes.errorbar(
                _apart(size, i, methods), mean, half, capsize=2, elinewidth=0.8, **{**look, "linestyle": "none"}
            )
            if line.slope:
                axes.plot(*_fitted(line, gap), **{**look, "marker": ""})


def _fitted(line: GapLine, gap: StudentGap) -> tuple[list[int], list[float]]:
    """Return the ends of a gain's line."""
    sizes = [gap.teachers[teacher] for teacher in line.teachers]
    centre, slope = fmean(map(math.log2, sizes)), line.slope.mean if line.slope else 0.0
    ends = [sizes[0], sizes[-1]]
    return ends, [(line.middle or 0.0) + slope * (math.log2(size) - centre) for size in ends]


def _apart(sizes: Sequence[int], i: int, methods: Mapping[str, object] | Sequence[str]) -> list[float]:
    """Return where the points of the i-th method stand, next to those of the others."""
    return [size * APART ** (i - (len(methods) - 1) / 2) for size in sizes]


def _set_teachers(axes: Any, sizes: Mapping[str, int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(list(sizes.values()), list(map(text, sizes)), rotation=45, ha="right")
    axes.minorticks_off()
    axes.set_xlabel("teacher, by number of parameters (log scale)")

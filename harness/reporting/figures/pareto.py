"""The score against the cost of a run, and the methods that no other beats in both."""

from collections.abc import Iterator, Sequence
from functools import partial

from harness.phrases import file_name
from harness.reporting.comparison import Comparison, Row
from harness.reporting.figures.style import COLUMN, Drawing, Figure, look, text

Point = tuple[float, float]  # hours, score in %


def drawings(comparison: Comparison) -> Iterator[Drawing]:
    """Yield a figure per pair with records of two methods."""
    shown = comparison.contents.task.shown
    for pair, rows in comparison.pairs().items():
        if sum(row.last is not None for row in rows) > 1:
            yield Drawing(
                file_name("pareto", *pair),
                f"{pair}: last-epoch {shown} against hours of training per run, the teacher's forward "
                "included, its training not; bars: one sample standard deviation over seeds; grey: what no method "
                "beats in both.",
                (COLUMN, 2.2),
                partial(_draw, rows, shown),
            )


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both cost and score, from the cheapest on."""
    best: list[Point] = []
    for hours, score in sorted(points, key=lambda p: (p[0], -p[1])):
        if not best or score > best[-1][1]:
            best.append((hours, score))
    return best


def _draw(rows: Sequence[Row], shown: str, figure: Figure) -> None:
    axes = figure.subplots()
    points = []
    for i, row in enumerate(rows):
        if (last := row.last) and row.cost_s is not None:
            hours, style = row.cost_s / 3600, {**look(i), "linestyle": "none"}
            points.append((hours, last.mean))
            axes.errorbar(hours, last.mean, last.std or 0.0, label=text(row.method), capsize=2, elinewidth=0.8, **style)
    axes.step(*zip(*front(points), strict=True), where="post", color="0.75", linewidth=0.8, zorder=0)
    axes.set_xlabel("hours of training per run")
    axes.set_ylabel(f"{shown} of {text(rows[0].student)} (%)")

"""The score against the cost of a run, and the methods that no other beats in both."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from harness.phrases import file_name
from harness.reporting.comparison import Comparison, Row
from harness.reporting.figures.style import Drawing, Figure, method_looks, pair_title, text, width_for

Point = tuple[float, float]  # cost, score in %
_UNITS = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


def drawings(comparison: Comparison) -> Iterator[Drawing]:
    """Yield a figure per pair with records of two methods."""
    shown = comparison.contents.task.shown
    for pair, rows in comparison.pairs().items():
        if sum(row.last is not None for row in rows) > 1:
            yield Drawing(
                file_name("pareto", *pair),
                f"{pair}: last-epoch {shown} against the time of training per run, the teacher's forward "
                "included, its training not; bars: one sample standard deviation over seeds; grey: what no method "
                "beats in both.",
                (width_for(len(rows)), 2.2),
                partial(_draw, rows, shown, method_looks(comparison)),
                pair_title(comparison, pair),
            )


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both cost and score, from the cheapest on."""
    best: list[Point] = []
    for cost, score in sorted(points, key=lambda p: (p[0], -p[1])):
        if not best or score > best[-1][1]:
            best.append((cost, score))
    return best


def _draw(rows: Sequence[Row], shown: str, looks: Mapping[str, dict[str, Any]], figure: Figure) -> None:
    axes = figure.subplots()
    measured = [(row, row.last, row.cost_s) for row in rows if row.last and row.cost_s is not None]
    unit, seconds = _unit(max((cost for _, _, cost in measured), default=0.0))
    points = [(cost / seconds, last.mean) for _, last, cost in measured]
    for (x, y), (row, last, _) in zip(points, measured, strict=True):
        style = {**looks[row.method], "linestyle": "none"}
        axes.errorbar(x, y, last.std or 0.0, label=text(row.method), capsize=2, elinewidth=0.8, **style)
    axes.step(*zip(*front(points), strict=True), where="post", color="0.75", linewidth=0.8, zorder=0)
    axes.set_xlabel(f"{unit} of training per run")
    axes.set_ylabel(f"{shown} of {text(rows[0].student)} (%)")


def _unit(longest: float) -> tuple[str, float]:
    """Return the largest unit that the longest time has two of, and its seconds."""
    return next((unit for unit in _UNITS if longest >= 2 * unit[1]), _UNITS[-1])

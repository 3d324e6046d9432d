"""Each method's gain over the baseline, drawn in plain characters for a terminal of 80 columns without colours."""

import shutil
from textwrap import wrap
from typing import NamedTuple

from harness.console.short_labels import ELLIPSIS, short_labels
from harness.reporting.comparison import Comparison, Row
from harness.reporting.figures.gains import gains_by_pair
from harness.reporting.statistics import Interval
from harness.reporting.tables.columns import stars

WIDTH, LONGEST_NAME, SHORTEST_AXIS = 80, 24, 16  # characters


class _Axis(NamedTuple):
    low: float
    high: float
    width: int  # characters

    @classmethod
    def of(cls, rows: list[Row], width: int) -> "_Axis":
        """Return the axis that shows 0 and every value."""
        values = [0.0]
        for row in rows:
            ends, gain = _interval(row), row.to_baseline
            values += [ends.low, ends.high] if ends else [gain.mean] if gain else []
        low, high = min(values), max(values)
        return cls(low, high if high > low else low + 1.0, width)

    def place(self, value: float) -> int:
        return round((value - self.low) / (self.high - self.low) * (self.width - 1))

    def labels(self) -> str:
        """Return a line with the lowest value, 0 and the highest under their places, as far as they fit."""
        line = ""
        for value in sorted({self.low, 0.0, self.high}):
            text = f"{value:+.1f}" if value else "0"
            start = min(max(0, self.place(value) - len(text) // 2), self.width - len(text))
            if not line or start > len(line):
                line = line.ljust(start) + text
        return line


def fitted_chart(comparison: Comparison, titled: bool = False) -> str:
    """Return the drawing for the terminal's width, or COLUMNS, but no wider than it is anywhere."""
    return gain_chart(comparison, min(WIDTH, shutil.get_terminal_size().columns), titled)


def gain_chart(comparison: Comparison, width: int = WIDTH, titled: bool = False) -> str:
    """Return a line for each method and pair: its mean gain and where that and its interval lie; "" without gains.

    None is longer than ``width``, if that leaves the axis its least length. ``titled``: after the sweep's name.
    """
    contents, pairs = comparison.contents, gains_by_pair(comparison)
    rows = [row for of_pair in pairs.values() for row in of_pair]
    if not rows:
        return ""
    names = _short_names(list(dict.fromkeys(row.method for row in rows)))
    margin = max(map(len, names.values())) + 14
    axis = _Axis.of(rows, max(width - margin, SHORTEST_AXIS))
    intervals = ", -: its 95 % interval" if any(map(_interval, rows)) else ""
    title = f"{contents.name}: " if titled else ""
    point = "one seed" if comparison.is_of_one_seed else "mean over seeds"
    lines = wrap(
        f"{title}Gain over {contents.baseline} in points of {contents.task.shown}. o: {point}{intervals}.",
        width,
    )
    for pair, of_pair in pairs.items():
        lines += ["", str(pair)]
        for row in of_pair:
            gain = f"{row.to_baseline.mean:+.2f} {stars(row.tested):3}" if row.to_baseline else ""
            lines.append(f"  {names[row.method]:{margin - 14}} {gain:>10} {_drawn(row, axis)}".rstrip())
    return "\n".join([*lines, " " * margin + axis.labels()]) + "\n"


def _interval(row: Row) -> Interval | None:
    return row.tested.interval if row.tested else None


def _short_names(names: list[str]) -> dict[str, str]:
    """Return names that fit and still differ, by the names."""
    if max(map(len, names)) <= LONGEST_NAME:
        return {name: name for name in names}
    short = (name.replace(ELLIPSIS, "..") for name in short_labels(names, LONGEST_NAME - 1))
    return dict(zip(names, short, strict=True))


def _drawn(row: Row, axis: _Axis) -> str:
    cells = [" "] * axis.width
    if ends := _interval(row):
        first, last = axis.place(ends.low), axis.place(ends.high)
        cells[first : last + 1] = "-" * (last + 1 - first)
    cells[axis.place(0.0)] = "|"
    if row.to_baseline:
        cells[axis.place(row.to_baseline.mean)] = "o"
    return "".join(cells)

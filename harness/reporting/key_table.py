"""A table of the keys in which two things differ."""

from collections.abc import Sequence

from harness.phrases import plural
from harness.spec.science_differences import Difference, Differences, shown


def section(title: str, differences: Differences, change: bool = False) -> list[str]:
    """Return a title with the number of equal keys, and below it the keys that differ."""
    return [f"{title} ({_equal(differences)})", *key_table(differences.keys, change)]


def key_table(differences: Sequence[Difference], change: bool = False) -> list[str]:
    """Return an indented line for each key below the head ``key  A  B``; nothing where no key differs.

    ``change``: add how much more B is, of numbers.
    """
    if not differences:
        return []
    rows = [["key", "A", "B", "B - A"], *([d.key, *_values(d), _change(d)] for d in differences)]
    rows = rows if change else [row[:3] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def change_of(difference: Difference) -> float | None:
    """Return how much more the second value is; None unless both are numbers."""
    first, second = difference.first, difference.second
    are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (first, second))
    return second - first if are_numbers else None


def _values(difference: Difference) -> list[str]:
    """Return both values, with as few digits as tell them apart."""
    values = difference.first, difference.second
    rounded = [float(f"{value:.6g}") if isinstance(value, float) else value for value in values]
    return list(map(shown, rounded if rounded[0] != rounded[1] else values))


def _change(difference: Difference) -> str:
    return "" if (change := change_of(difference)) is None else f"{change:+.4g}"


def _equal(differences: Differences) -> str:
    if not differences.keys:
        return f"all {plural(differences.equal, 'key')} equal"
    return f"{plural(differences.equal, 'equal key')} left out"

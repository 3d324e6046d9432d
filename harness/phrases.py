"""Phrases that messages share: a count with its noun, the first names of many, a percentage."""

from collections.abc import Collection
from itertools import islice


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """Return ``1 run``, ``2 runs`` or ``1,200 runs``; ``nouns`` is an irregular plural."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def some(names: Collection[str], shown: int = 3, separator: str = ", ") -> str:
    """Return the first ``shown`` names, followed by the number of the others: ``a, b, c and 4 more``."""
    more = len(names) - shown
    return separator.join(islice(names, shown)) + (f" and {more:,} more" if more > 0 else "")


def percent(value: float | None) -> str:
    """Return ``71.98 %``; of None, ``not measurable`` (the average precision of images without objects)."""
    return "not measurable" if value is None else f"{value:.2f} %"

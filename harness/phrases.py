"""Phrases that messages share: a count with its noun, the first names of many, a percentage; and names of files."""

import hashlib
import re
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


_LONGEST = 120  # bytes of a name in a path: file systems take 255, and suffixes follow


def file_name(*parts: str) -> str:
    """Join names to the name of one file or folder, whatever they hold: they may come from a file that others wrote.

    Characters that some systems refuse, as in ``timm:resnet18``, and all that would lead to another folder become
    ``_``; a name that is too long ends with a hash instead.
    """
    name = re.sub(r"^\.|[^\w.+-]", "_", "_".join(parts)) or "_"
    if len(name.encode()) <= _LONGEST:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: _LONGEST - 9].decode(errors='ignore')}-{mark}"

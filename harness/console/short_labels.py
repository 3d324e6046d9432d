"""Labels that fit a width: shortened in the middle, where they agree, so that they still tell one from another."""

import re
from collections import defaultdict
from collections.abc import Sequence
from os.path import commonprefix

from rich.cells import cell_len

ELLIPSIS = "…"
_SEPARATOR = re.compile(r"( / | > )")  # between the parts of a run's label
_LEAST = 3  # characters of a part


def short_labels(labels: Sequence[str], width: int) -> list[str]:
    """Return labels of at most ``width`` characters where their parts can be made that short."""
    split = [_SEPARATOR.split(label) for label in labels]
    alternatives = defaultdict[tuple[int, int], set[str]](set)
    for parts in split:
        for i, part in enumerate(parts):
            alternatives[len(parts), i].add(part)
    return ["".join(_fitted(parts, [alternatives[len(parts), i] for i in range(len(parts))], width)) for parts in split]


def _fitted(parts: Sequence[str], alternatives: Sequence[set[str]], width: int) -> list[str]:
    """Return a label's parts, of which the longest are shortened until the whole fits."""
    lengths = [cell_len(part) for part in parts]
    while sum(lengths) > width and max(lengths[::2]) > _LEAST:
        lengths[lengths.index(max(lengths[::2]))] -= 1
    return [_shortened(p, n, others) for p, n, others in zip(parts, lengths, alternatives, strict=True)]


def _shortened(part: str, length: int, alternatives: set[str]) -> str:
    """Return a part without the middle of what it shares with all others; where that is too short, of all of it."""
    if cell_len(part) <= length:
        return part
    excess = len(part) - length + 1
    before = len(commonprefix(list(alternatives)))
    after = min(len(commonprefix([text[::-1] for text in alternatives])), len(part) - before)
    pieces = [(0, before), (len(part) - after, len(part))] if len(alternatives) > 1 else []
    begin, end = max(pieces, key=lambda piece: piece[1] - piece[0], default=(0, len(part)))
    if end - begin < excess:
        begin, end = 0, len(part)
    cut = begin + (end - begin - excess + 1) // 2
    return part[:cut] + ELLIPSIS + part[cut + excess :]

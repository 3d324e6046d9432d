"""Labels that fit a width: shortened in the middle, where they agree, so that they still tell one from another."""

import re
from collections import defaultdict
from collections.abc import Sequence

from rich.cells import cell_len

ELLIPSIS = "…"
_SEPARATOR = re.compile(r"( / | > )")  # between the parts of a run's label
_ENOUGH, _LEAST = 8, 3  # characters of a part: that it keeps before others are shortened, and at least


def short_labels(labels: Sequence[str], width: int) -> list[str]:
    """Return labels of at most ``width`` characters where their parts can be made that short."""
    split = [_SEPARATOR.split(label) for label in labels]
    alternatives = defaultdict[tuple[int, int], set[str]](set)
    for parts in split:
        for i, part in enumerate(parts):
            alternatives[len(parts), i].add(part)
    return ["".join(_fitted(parts, [alternatives[len(parts), i] for i in range(len(parts))], width)) for parts in split]


def _fitted(parts: Sequence[str], alternatives: Sequence[set[str]], width: int) -> list[str]:
    """Return a label's parts, of which the longest are shortened until the whole fits: first those that all share."""
    lengths = [cell_len(part) for part in parts]
    names = range(0, len(parts), 2)  # the others are separators
    while sum(lengths) > width:
        shared = [i for i in names if len(alternatives[i]) == 1 and lengths[i] > _ENOUGH]
        if not (longest := shared or [i for i in names if lengths[i] > _LEAST]):
            break
        lengths[max(longest, key=lengths.__getitem__)] -= 1
    return [_shortened(p, n, others) for p, n, others in zip(parts, lengths, alternatives, strict=True)]


def _shortened(part: str, length: int, alternatives: set[str]) -> str:
    """Return a part without a piece near its middle whose absence leaves it different from all alternatives."""
    if cell_len(part) <= length:
        return part
    kept = max(0, length - 1)
    middle = (kept + 1) // 2
    cuts = [(part[:n], part[len(part) - kept + n :]) for n in sorted(range(kept + 1), key=lambda n: abs(n - middle))]
    others = alternatives - {part}
    clear = (cut for cut in cuts if not any(text.startswith(cut[0]) and text.endswith(cut[1]) for text in others))
    return ELLIPSIS.join(next(clear, cuts[0]))

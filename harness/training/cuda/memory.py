"""How many members train at once: as many as the GPU's memory holds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


def fits_another(free: int, total: int, needs: Sequence[int]) -> bool:
    """Whether one more member has room beside those whose first step has taken ``needs`` bytes each.

    It is taken to need what the greediest of them did. As much again must stay for a step that is not played from a
    graph while all graphs hold their memory, and a twentieth of the whole for what fragments.
    """
    return not needs or free >= 2 * max(needs) + total // 20


class MemoryBudget:
    """The memory of the current GPU."""

    def __init__(self) -> None:
        self._needs: dict[str, int] = {}

    def left(self) -> bool:
        return fits_another(*torch.cuda.mem_get_info(), list(self._needs.values()))

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Around a member's first step, in a stream that nothing has run in: all it needs is newly reserved."""
        before = torch.cuda.memory_reserved()
        yield
        self._needs[name] = torch.cuda.memory_reserved() - before

    def clear(self) -> None:
        """After the last member has left."""
        self._needs = {}
        torch.cuda.empty_cache()

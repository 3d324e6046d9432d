"""A GPU's memory as the limit on how many members of a pack train at once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


def fits_another(free: int, total: int, used: Sequence[int]) -> bool:
    """Return whether one more member fits next to those whose first step took ``used`` bytes each.

    Assume it needs as much as the largest so far. Keep the same again for an eager step while graphs hold their memory,
    plus 5 % of the whole for fragmentation.
    """
    return not used or free >= 2 * max(used) + total // 20


class MemoryBudget:
    """The memory of the current GPU; on a CPU there is no limit."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._used: dict[str, int] = {}

    def fits_another(self) -> bool:
        """Return whether one more member can begin to train."""
        return not self._cuda or fits_another(*torch.cuda.mem_get_info(), list(self._used.values()))

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measure a member's first step. It runs in a stream of its own, so all its memory is newly reserved."""
        before = torch.cuda.memory_reserved() if self._cuda else 0
        yield
        if self._cuda:
            self._used[name] = torch.cuda.memory_reserved() - before

    def reset(self) -> None:
        """Forget the measurements and return cached memory to the GPU, when no member is in training."""
        self._used = {}
        torch.cuda.empty_cache()

"""Threads that fill tensors ahead of their use.

For what lets go of Python's lock, as PIL does while it decodes and resizes: threads need neither copies of a batch nor
an end of their own when an epoch is left early.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

AHEAD = 2  # batches begun before they are asked for

# A tensor, and what fills it; no part of it is filled by two of them.
Batch = tuple[Tensor, list[Callable[[], None]]]


def prefetch(batches: Iterable[Batch], workers: int) -> Generator[Tensor, None, None]:
    """Yield each tensor, filled, in order. Closing the generator ends the threads; an error in one of them is raised
    here.
    """
    pool = ThreadPoolExecutor(workers)
    begun: deque[tuple[Tensor, list[Future[None]]]] = deque()
    try:
        for tensor, parts in batches:
            begun.append((tensor, [pool.submit(part) for part in parts]))
            if len(begun) > AHEAD:
                yield _done(*begun.popleft())
        while begun:
            yield _done(*begun.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _done(tensor: Tensor, parts: list[Future[None]]) -> Tensor:
    for part in parts:
        part.result()
    return tensor

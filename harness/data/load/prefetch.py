"""Threads that fill tensors ahead of their use.

The functions that fill them should release Python's lock, as PIL does while it decodes and resizes. Unlike processes,
threads need no copies of a batch, and no shutdown of their own when an epoch ends early.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

AHEAD = 2  # batches begun before they are asked for

# A tensor, and the functions that fill it; no two of them fill the same part.
Batch = tuple[Tensor, list[Callable[[], None]]]


def prefetch(batches: Iterable[Batch], workers: int) -> Generator[Tensor, None, None]:
    """Yield each tensor, filled, in order. Closing the generator ends the threads; their errors are raised here."""
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

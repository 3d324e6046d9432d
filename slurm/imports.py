"""Imports of many modules at once, as a job does when it starts."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Import without garbage collections, and keep what is imported out of all later ones.

    Modules are never garbage, but a collection looks through all of their million objects: that is a sixth of the time
    that ``import torch`` takes.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()

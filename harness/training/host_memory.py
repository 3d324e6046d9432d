"""The glibc allocator's settings for training: keep one step's memory for the next, in huge pages."""

import ctypes
import os

# <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def retain_freed_memory() -> None:
    """Make this process's allocator keep freed memory. Call it before the first tensor is made.

    glibc returns blocks of several megabytes to the kernel when they are freed. Each step then faults them in again,
    page by page: about a tenth of a training step on a CPU. Numbers do not change. Without glibc or transparent huge
    pages this does nothing.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it at its first allocation
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)

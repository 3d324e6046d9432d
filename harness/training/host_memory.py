"""The glibc allocator's settings for training: keep one step's memory for the next, in huge pages."""

import ctypes
from functools import cache

# <malloc.h> and <sys/mman.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MADV_HUGEPAGE = 14
_NEVER, _LARGEST = -1, (1 << 31) - 1  # of mallopt, which takes an int
_HUGE_PAGE = 1 << 21


@cache
def retain_freed_memory() -> None:
    """Make this process's allocator keep freed memory. Call it before the first tensor is made.

    glibc returns blocks of several megabytes to the kernel when they are freed. Each step then faults them in again,
    page by page: about a tenth of a training step on a CPU. Numbers do not change. Without glibc or transparent huge
    pages this does nothing.
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt, madvise = libc.mallopt, libc.madvise
    except (OSError, AttributeError):
        return
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
    mallopt(_M_MMAP_THRESHOLD, _LARGEST)
    # The heap grows by a block that is never written to, which takes addresses but no memory. Huge pages for the heap
    # as a whole leave fewer gaps between tensors than torch's own, which begin each tensor on a new page.
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    libc.free.restype, libc.free.argtypes = None, (ctypes.c_void_p,)
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    size = _LARGEST - _HUGE_PAGE
    if block := libc.malloc(size):
        first = -(-block // _HUGE_PAGE) * _HUGE_PAGE
        madvise(first, (block + size - first) // _HUGE_PAGE * _HUGE_PAGE, _MADV_HUGEPAGE)
        libc.free(block)
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)

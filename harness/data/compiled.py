"""Functions that numba compiles where it is installed, as it is with FFCV, and that Python runs elsewhere."""

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

try:
    import numba
except ImportError:
    numba = None


def compiled(function: Function) -> Function:
    """Compile a function when it is first called, and keep the result beside its file or in numba's own folder, if one
    of them can be written.
    """
    if numba is None:
        return function
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)

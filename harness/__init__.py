"""A distributed benchmark harness for knowledge distillation."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.api import Results

__version__ = "0.1.0"
__all__ = ["open_store"]


def open_store(path: str | os.PathLike[str] = "results") -> "Results":
    """Open a store's folder to read its results.

    Raises:
        UserError: there is no such folder.
    """
    from harness.api import Results

    return Results(Path(path))

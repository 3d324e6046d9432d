"""A distributed benchmark harness for knowledge distillation."""

import os
import sys

# `python -m` lets Python import from the current folder first, which may be one that others have sent. This stands
# before all imports of files; the harness's own folder stays.
_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_WORDS = (word.partition("m")[2] if word[:1] == "-" else word for word in sys.orig_argv)  # of -mNAME and -umNAME, NAME
_MODULES = [word.partition(".")[0] for word in _WORDS]
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and sys.path[0] != _HERE and "harness" in _MODULES:
    del sys.path[0]

from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

if TYPE_CHECKING:
    from harness.api import Results
    from harness.training.classifier import Classifier

__version__ = "0.1.0"
__all__ = ["load_model", "open_store"]


def open_store(path: str | os.PathLike[str] = "results") -> "Results":
    """Open a store's folder to read its results.

    Raises:
        UserError: there is no such folder.
    """
    from harness.api import Results

    return Results(Path(path))


def load_model(
    run: str,
    results: str | os.PathLike[str] = "results",
    epoch: str = "last",
    own_method: str | None = None,
    own_models: tuple[str, ...] = (),
) -> "Classifier":
    """Load a finished run's trained classifier, in eval mode on the CPU, which normalises images itself.

    Args:
        run: the run's id or the start of it.
        results: the store.
        epoch: "last", or "best" for a run that was trained by `sweep --keep-best`.
        own_method: the run's method, where it is your own and part of the model, as `module:Name`; it is imported.
        own_models: likewise the run's student or teacher. No other module that the record names is imported.

    Raises:
        UserError: there is no such store, run, epoch or file, or it is no classifier.
    """
    from harness.api import load_model as load

    return load(run, Path(results), epoch, own_method, own_models)

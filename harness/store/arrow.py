"""Settings that keep pyarrow's start short."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

import pyarrow as pa


def without_pandas() -> None:
    """Keep pyarrow from importing pandas, for commands that make no DataFrame.

    pyarrow looks for pandas when it first converts values to or from Python. If it finds none, it does not look again
    until asked for a DataFrame. Importing pandas takes as long as importing pyarrow itself.
    """
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    pa.array([])
    sys.meta_path.remove(finder)


class _NoPandas(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name=name)

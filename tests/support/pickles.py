"""Pickles that call a function when they are read."""

from typing import Any


class Calls:
    """An object whose pickle calls a function when it is read."""

    def __init__(self, function: Any, *args: Any):
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call

"""The models of timm and torchvision by name, read from the installed sources: importing them would import torch."""

import difflib
import importlib.util
import re
from functools import cache
from pathlib import Path

from harness.errors import shorten

LIBRARIES = ("timm", "torchvision")
# Both mark a model's factory so; further decorators may stand in between.
_REGISTERED = re.compile(r"^@register_model\b[^\n]*\n(?:[@ )][^\n]*\n)*def (\w+)\(", re.MULTILINE)


def is_foreign(name: str) -> bool:
    """Whether this is ``timm:NAME`` or ``torchvision:NAME``."""
    return name.startswith(tuple(f"{library}:" for library in LIBRARIES))


@cache
def names(library: str) -> frozenset[str]:
    """Every classification model of the installed version, without the library's name before it.

    Raises:
        ValueError: it is not installed.
    """
    found = importlib.util.find_spec(library)
    if found is None or found.origin is None:
        raise ValueError(f"models of {library} need it installed: pip install '.[timm]'")
    files = (Path(found.origin).parent / "models").glob("*.py")
    return frozenset(name for file in files for name in _REGISTERED.findall(file.read_text(encoding="utf-8")))


def check(name: str) -> None:
    """Raises:
    ValueError: the library is not installed or has no such model; the message gives the nearest names.
    """
    library, _, model = name.partition(":")
    if model not in names(library):
        near = difflib.get_close_matches(model[:200], sorted(names(library)), cutoff=0.5) or ["resnet18"]
        raise ValueError(
            f"{library} has no model {shorten(model)}; nearest: {', '.join(f'{library}:{n}' for n in near)}"
        )

"""The models of timm and torchvision by name, read from the installed sources: importing them would import torch."""

import difflib
import importlib.util
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from harness.errors import shorten

LIBRARIES = ("timm", "torchvision")
# Both mark a model's factory so; further decorators may stand in between.
_REGISTERED = re.compile(r"^@register_model\b[^\n]*\n(?:[@ )][^\n]*\n)*def (\w+)\(", re.MULTILINE)


def is_library_model(name: str) -> bool:
    """Whether this is ``timm:NAME`` or ``torchvision:NAME``."""
    return name.startswith(tuple(f"{library}:" for library in LIBRARIES))


@cache
def library_model_names(library: str) -> frozenset[str]:
    """Every classification model of the installed version, without the library's name before it.

    Raises:
        ValueError: it is not installed.
    """
    return frozenset(name for text in source_texts(library) for name in _REGISTERED.findall(text))


def source_texts(library: str, folder: str = "models") -> Iterator[str]:
    """The source files of a library's classification models, or of those in another of its folders.

    Raises:
        ValueError: it is not installed.
    """
    found = importlib.util.find_spec(library)
    if found is None or found.origin is None:
        raise ValueError(f"models of {library} need it installed: pip install '.[timm]'")
    for file in (Path(found.origin).parent / folder).glob("*.py"):
        yield file.read_text(encoding="utf-8")


def check_library_model(name: str) -> None:
    """Raises:
    ValueError: the library is not installed or has no such model; the message gives the nearest names.
    """
    library, _, model = name.partition(":")
    if model not in library_model_names(library):
        raise ValueError(unknown_library_name(library, "model", model, library_model_names(library)))


def unknown_library_name(library: str, kind: str, name: str, valid: Iterable[str]) -> str:
    """The message about a name that a library does not have, with the nearest ones."""
    valid = sorted(valid)
    near = difflib.get_close_matches(name[:200], valid, cutoff=0.5) or valid[:1]
    return f"{library} has no {kind} {shorten(name)}; nearest: {', '.join(f'{library}:{n}' for n in near)}"

"""Models of timm and torchvision by name, read from the installed sources: importing them would import torch."""

import difflib
import importlib.util
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from harness.errors import shorten

LIBRARIES = ("timm", "torchvision")
# Both libraries mark a model's factory like this; further decorators may stand in between.
_REGISTERED = re.compile(r"^@register_model\b[^\n]*\n(?:[@ )][^\n]*\n)*def (\w+)\(", re.MULTILINE)


def is_library_model(name: str) -> bool:
    """Return whether a name is ``timm:NAME`` or ``torchvision:NAME``."""
    return name.startswith(tuple(f"{library}:" for library in LIBRARIES))


@cache
def library_model_names(library: str) -> frozenset[str]:
    """Return every classification model of the installed version, without the library's name.

    Raises:
        ValueError: it is not installed.
    """
    return frozenset(name for text in source_texts(library) for name in _REGISTERED.findall(text))


def library_models_called(name: str) -> list[str]:
    """Return the models of this name that the installed libraries have, such as ``timm:NAME``."""
    matches = []
    for library in LIBRARIES:
        with suppress(ValueError):  # it is not installed
            if name in library_model_names(library):
                matches.append(f"{library}:{name}")
    return matches


def source_texts(library: str, folder: str = "models") -> Iterator[str]:
    """Yield the source files of a library's classification models, or of another of its folders.

    Raises:
        ValueError: it is not installed.
    """
    for file in (package_folder(library) / folder).glob("*.py"):
        yield file.read_text(encoding="utf-8")


def package_folder(library: str) -> Path:
    """Return the folder of an installed library.

    Raises:
        ValueError: it is not installed.
    """
    package = importlib.util.find_spec(library)
    if package is None or package.origin is None:
        raise ValueError(f"models of {library} need it installed: pip install 'kd-harness[timm]'")
    return Path(package.origin).parent


def check_library_model(name: str) -> None:
    """Check that a library has a model, such as ``timm:NAME``.

    Raises:
        ValueError: the library is not installed or has no such model; the message gives the nearest names.
    """
    library, _, model = name.partition(":")
    if model not in library_model_names(library):
        raise ValueError(unknown_library_name(library, "model", model, library_model_names(library)))


def unknown_library_name(library: str, kind: str, name: str, valid: Iterable[str]) -> str:
    """Return the message about a name that a library does not have, with the nearest names."""
    near = difflib.get_close_matches(name[:200], sorted(valid), cutoff=0.5)
    hint = f"; nearest: {', '.join(f'{library}:{n}' for n in near)}" if near else ""
    return f"{library} has no {kind} {shorten(name)}{hint}"

"""Models of timm and torchvision by name, read from the installed sources: importing them would import torch."""

import ast
import difflib
import importlib.util
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import shorten

LIBRARIES = ("timm", "torchvision")
_LOADING = ("pretrained", "weights", "checkpoint")  # arguments that begin so read files or download them
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


def checked_params(name: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that a sweep states for a library's model, numbers in the types of its constructor.

    A factory passes them on by ``**kwargs``, so that an argument counts as known if its file has one of that name.

    Raises:
        ValueError: there is no such argument, or it would load something or is the harness's to set.
    """
    if not params:
        return {}
    library, _, model = name.partition(":")
    known = _arguments(library, model)
    checked = {}
    for key, value in params.items():
        if key in _kept_arguments(library) or key.startswith(_LOADING):
            raise ValueError(f"{name}: {key} is set by the harness, or would load something; leave it out")
        if key not in known:
            near = difflib.get_close_matches(key[:200], sorted(known), n=3)
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise ValueError(f"{name}: no argument named {shorten(key)} in its source{hint}")
        checked[key] = _typed(value, known[key])
    return checked


def _typed(value: Any, kinds: set[str]) -> Any:
    """Return a number in the type that an argument has wherever it is defined: 1 and 1.0 are then one value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if kinds == {"float"}:
        return float(value)
    return int(value) if kinds == {"int"} and value == int(value) else value


@cache
def _arguments(library: str, model: str) -> dict[str, set[str]]:
    """Return what may be arguments of a model, by the files that define it, with the types that these state.

    They are the arguments of functions, the fields of classes, and texts, by which a model may look into kwargs.
    """
    kinds: dict[str, set[str]] = {}
    tree = ast.parse(next(text for text in source_texts(library) if model in _REGISTERED.findall(text)))
    nodes = [node for each in (tree, *_imported_models(library, tree)) for node in ast.walk(each)]
    for node in nodes:
        match node:
            case ast.arg(name, annotation) | ast.AnnAssign(ast.Name(name), annotation):
                stated = [annotation.id] if isinstance(annotation, ast.Name) else []
                kinds.setdefault(name, set()).update(stated)
            case ast.Constant(str(text)) if text.isidentifier():
                kinds.setdefault(text, set())
    return kinds


def _imported_models(library: str, tree: ast.Module) -> Iterator[ast.Module]:
    """Yield the sources of the models that a model's file imports: DeiT's class is derived from that of ViT."""
    for node in tree.body:
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and (node.level == 1 or node.module.startswith(f"{library}.models."))
        ):
            file = package_folder(library) / "models" / f"{node.module.rpartition('.')[2]}.py"
            if file.exists() and not file.name.startswith("_"):
                yield ast.parse(file.read_text(encoding="utf-8"))


@cache
def _kept_arguments(library: str) -> frozenset[str]:
    """Return the arguments by which a library is told what to build and load, which are not the sweep's to state."""
    kept = {"num_classes", "in_chans", "in_channels", "features_only", "out_indices", "progress"}
    if library == "timm":
        for file, function in (("_factory", "create_model"), ("_builder", "build_model_with_cfg")):
            tree = ast.parse((package_folder(library) / "models" / f"{file}.py").read_text(encoding="utf-8"))
            for node in tree.body:
                if isinstance(node, ast.FunctionDef) and node.name == function:
                    kept |= {arg.arg for arg in (*node.args.args, *node.args.kwonlyargs)}
    return frozenset(kept)


def unknown_library_name(library: str, kind: str, name: str, valid: Iterable[str]) -> str:
    """Return the message about a name that a library does not have, with the nearest names."""
    near = difflib.get_close_matches(name[:200], sorted(valid), cutoff=0.5)
    hint = f"; nearest: {', '.join(f'{library}:{n}' for n in near)}" if near else ""
    return f"{library} has no {kind} {shorten(name)}{hint}"

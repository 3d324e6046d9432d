"""Normalisation that the weights of torchvision and timm expect, read from the installed libraries' sources.

Importing the libraries would import torch.
"""

import ast
import re
import runpy
from collections import ChainMap
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from harness.spec import library_models
from harness.spec.normalisation import Normalisation

_IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_INCEPTION = Normalisation((0.5,) * 3, (0.5,) * 3)
_KEY = re.compile(r"""^ +['"](\w+\.\w+)['"]:""", re.MULTILINE)
# The library builds these networks so that they normalise again when they have weights; the harness builds them bare.
_NORMALISES_AGAIN = '_param(kwargs, "transform_input", True)'


@cache
def published_normalisation(name: str) -> Normalisation | None:
    """Return what weights such as ``timm:resnet34.a1_in1k`` expect; None where the library's source does not say it.

    Raises:
        ValueError: the installed version states it in a form that is unknown here.
    """
    library, _, weights = name.partition(":")
    try:
        return _of_torchvision(weights) if library == "torchvision" else _of_timm(weights)
    except (KeyError, TypeError, ValueError, StopIteration):
        raise ValueError(f"mean and std of {name} cannot be read from the installed {library}: state both") from None


def _of_torchvision(weights: str) -> Normalisation | None:
    enum, _, member = weights.partition(".")
    start = f"class {enum}(WeightsEnum):\n"
    for text in library_models.source_texts("torchvision"):
        if start in text:
            if _NORMALISES_AGAIN in text:
                return _INCEPTION
            (body,) = (n.body for n in ast.parse(text).body if isinstance(n, ast.ClassDef) and n.name == enum)
            entry = next(n.value for n in body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == member)
            return _normalisation(dict(_entries(entry)), {}) or _IMAGENET
    return None


def _of_timm(weights: str) -> Normalisation | None:
    if (text := _timms_sources().get(weights)) is None:
        return None
    entries, functions = _parsed(text)
    stated = ChainMap(*(dict(_entries(part)) for part in _behind(entries[weights], functions)))
    return _normalisation(stated, _constants())


@cache
def _timms_sources() -> dict[str, str]:
    """Return the source that each of timm's weights is listed in."""
    return {weights: text for text in library_models.source_texts("timm") for weights in _KEY.findall(text)}


@cache
def _parsed(text: str) -> tuple[dict[str, ast.expr], dict[str, ast.AST]]:
    """Return the values of all keys in a source's dictionaries, and its functions."""
    tree = ast.parse(text)
    functions: dict[str, ast.AST] = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    return dict(_entries(tree)), functions


@cache
def _constants() -> dict[str, Any]:
    return runpy.run_path(str(library_models.package_folder("timm") / "data" / "constants.py"))


def _behind(entry: ast.AST, functions: Mapping[str, ast.AST]) -> Iterator[ast.AST]:
    """Yield an entry, then the functions that make it, from the outermost to those that state the defaults."""
    yield entry
    for node in ast.walk(entry):
        if isinstance(node, ast.Call) and (function := functions.get(ast.unparse(node.func))):
            yield from _behind(function, functions)


def _normalisation(stated: Mapping[str, ast.expr], constants: Mapping[str, Any]) -> Normalisation | None:
    if "mean" not in stated or "std" not in stated:
        return None
    return Normalisation(*(tuple(_evaluated(stated[key], constants)) for key in ("mean", "std")))


def _entries(part: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield what a part of a source states, as ``key=VALUE`` or ``'key': VALUE``."""
    for node in ast.walk(part):
        if isinstance(node, ast.keyword) and node.arg:
            yield node.arg, node.value
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            yield from (
                (key.value, value)
                for key, value in pairs
                if isinstance(key, ast.Constant) and isinstance(key.value, str)
            )


def _evaluated(node: ast.expr, constants: Mapping[str, Any]) -> Any:
    """Return the value of numbers, their quotients, lists of them, and names of constants."""
    if isinstance(node, ast.Tuple | ast.List):
        return [_evaluated(element, constants) for element in node.elts]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return _evaluated(node.left, constants) / _evaluated(node.right, constants)
    return constants[node.id] if isinstance(node, ast.Name) else ast.literal_eval(node)

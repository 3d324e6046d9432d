"""Descriptions of methods, read from their sources without importing them (planning must not import torch).

A method is a class with literal ``weights`` and ``version`` and an ``__init__`` whose keyword-only arguments, with
their annotations and literal defaults, are its hyper-parameters.
"""

import ast
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import UserError, expected, shorten, unknown
from harness.spec import tasks
from harness.spec.optimizers import OWN_KEYS
from harness.spec.source_code import OwnCode, parse

METHODS_FOLDER = Path(__file__).resolve().parents[2] / "methods"
_NOT_LITERAL = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError)  # all that literal_eval may raise
_STATES_WEIGHTS = re.compile(r"^    weights\b.* = ", re.MULTILINE)


_IN_WORDS = {"float": "a number", "int": "an integer", "bool": "true or false", "str": "text"}


@dataclass(frozen=True)
class Hyper:
    """One hyper-parameter: its type (``float``, ``int``, ``bool``, ``str`` or a tuple of literals) and default."""

    kind: str
    choices: tuple[Any, ...]
    default: Any

    def check(self, value: Any) -> Any:
        """Return a value in the hyper-parameter's own type.

        Raises:
            ValueError: another type or value; the message says what was expected.
        """
        if self.choices:
            if value not in self.choices or isinstance(value, bool) != isinstance(self.choices[0], bool):
                raise ValueError(unknown("value", value, map(str, self.choices)))
            return value
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
        if self.kind == "float" and number:
            return float(value)
        if self.kind == "int" and number and value == int(value):
            return int(value)
        if self.kind in ("bool", "str") and type(value).__name__ == self.kind:
            return value
        quotes = "; take the quotes away" if self.kind in ("float", "int") and _is_number(value) else ""
        raise ValueError(expected(_IN_WORDS.get(self.kind, self.kind), value) + quotes)


@dataclass(frozen=True)
class MethodInfo:
    """A method as the planner knows it."""

    target: str  # "methods.kd:KD", what the job imports
    version: int | str  # the class's own number; for a method outside this package, a hash of its source
    weights: dict[str, float]
    needs_teacher: bool
    logits_only: bool  # it reads nothing of the teacher but its logits
    part_of_model: bool
    defined_for: tuple[str, ...]  # kinds of models, see methods.base.Distiller
    hyper: dict[str, Hyper]
    summary: str
    several_teachers: bool = False  # it reads each of several teachers' outputs
    views: tuple[str, ...] = ()  # further views of images that it reads
    views_with: tuple[str, Any] | None = None  # the hyper-parameter and its value with which alone it reads them
    per_image: bool = False  # it keeps something of each training image
    # Hyper-parameter -> another one and its value, with which alone it is used
    used_with: dict[str, tuple[str, Any]] = field(default_factory=dict)

    def views_read(self, params: dict[str, Any]) -> tuple[str, ...]:
        """Return the further views that it reads with these hyper-parameters."""
        if self.views_with is None:
            return self.views
        key, value = self.views_with
        return self.views if params[key] == value else ()


@cache
def builtin_names() -> tuple[str, ...]:
    """Return the names of the methods in ``methods/``: its modules with a class that states ``weights``."""
    files = METHODS_FOLDER.glob("*.py")
    return tuple(sorted(p.stem for p in files if _STATES_WEIGHTS.search(p.read_text(encoding="utf-8"))))


def describe_method(name: str) -> MethodInfo:
    """Describe a built-in method by its name, or a user's own by ``package.module:Class``.

    Raises:
        UserError: there is no such method, or its source does not follow the rules above.
    """
    return describe_own_method(name) if ":" in name else describe_builtin_method(name)


@cache
def describe_builtin_method(name: str) -> MethodInfo:
    """Describe a method of the harness, as ``describe_method`` does."""
    if name not in builtin_names():
        module, dot, last = name.rpartition(".")
        hint = f"; is it your own? write {module}:{last}" if dot else ""
        if name in OWN_KEYS:
            example = f"kd_{name}: {{use: kd, recipe: {{optimizer: {name}}}}}"
            raise UserError(f"{name} is an optimizer, not a method: expected it in a recipe, as in {example}")
        raise UserError(unknown("method", name, builtin_names()) + hint)
    tree = parse(METHODS_FOLDER / f"{name}.py")
    return _read(tree, _only_distiller(tree, name), f"methods.{name}", version=None)


@cache
def describe_own_method(name: str) -> MethodInfo:
    """Describe a user's own method, as ``describe_method`` does. What is known is kept until the cache is cleared."""
    own = OwnCode("method", name)
    tree = parse(own.file)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == own.object_name:
            return _read(tree, node, own.module, version=own.version())
    classes = [n.name for n in tree.body if isinstance(n, ast.ClassDef)]
    raise UserError(f"{own}: {unknown('class', own.object_name, classes)}")


def _is_number(value: Any) -> bool:
    with suppress(ValueError):
        return isinstance(value, str) and abs(float(value)) < 1e300
    return False


def _only_distiller(tree: ast.Module, name: str) -> ast.ClassDef:
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and "weights" in _class_literals(n)]
    assert len(classes) == 1, f"methods/{name}.py must hold exactly one class with `weights`"
    return classes[0]


def _class_literals(node: ast.ClassDef) -> dict[str, Any]:
    out = {}
    for item in node.body:
        match item:
            case ast.AnnAssign(ast.Name(name), value=ast.expr() as value) | ast.Assign([ast.Name(name)], value):
                with suppress(*_NOT_LITERAL):
                    out[name] = ast.literal_eval(value)
    return out


def _read(tree: ast.Module, node: ast.ClassDef, module: str, version: str | None) -> MethodInfo:
    literals = _class_literals(node)
    weights = literals.get("weights")
    if not isinstance(weights, dict) or "ce" not in weights or not all(map(_is_term, weights.items())):
        raise UserError(f"{module}:{node.name}: needs a literal `weights = {{'ce': 1.0, ...}}` in the class body")
    defined_for = literals.get("defined_for", ("classification",))
    if not isinstance(defined_for, tuple) or not defined_for or not set(defined_for) <= set(tasks.KINDS):
        raise UserError(f"{module}:{node.name}: `defined_for` must be a tuple of some of {', '.join(tasks.KINDS)}")
    hyper = _hyper(node, f"{module}:{node.name}")
    used_with = literals.get("used_with", {})
    if not isinstance(used_with, dict) or not all(_is_condition(item, hyper) for item in used_with.items()):
        text = "`used_with` must map a hyper-parameter to another one and its value: {'tau': ('selection', 'soft')}"
        raise UserError(f"{module}:{node.name}: {text}")
    views = literals.get("views", ())
    if not isinstance(views, tuple) or not all(isinstance(name, str) for name in views):
        raise UserError(f"{module}:{node.name}: `views` must be a tuple of names: ('strong',)")
    views_with = literals.get("views_with")
    if views_with is not None and not _is_condition(("", views_with), {"": None, **hyper}):
        text = "`views_with` must be a hyper-parameter and its value: ('base', 'mlkd')"
        raise UserError(f"{module}:{node.name}: {text}")
    doc = ast.get_docstring(node) or ast.get_docstring(tree) or ""
    return MethodInfo(
        target=f"{module}:{node.name}",
        version=version or literals.get("version", 1),
        weights={k: float(v) for k, v in weights.items()},
        needs_teacher=literals.get("needs_teacher", True),
        logits_only=literals.get("logits_only", False),
        part_of_model=literals.get("part_of_model", False),
        defined_for=defined_for,
        hyper=hyper,
        summary=doc.split("\n\n")[0].replace("\n", " "),
        views=views,
        views_with=views_with,
        per_image=literals.get("per_image", False),
        used_with=used_with,
        several_teachers=literals.get("several_teachers", False),
    )


def _is_term(item: tuple[Any, Any]) -> bool:
    name, weight = item
    return isinstance(name, str) and isinstance(weight, int | float) and not isinstance(weight, bool)


def _is_condition(item: tuple[Any, Any], hyper: Mapping[str, Hyper | None]) -> bool:
    key, condition = item
    return key in hyper and isinstance(condition, tuple) and len(condition) == 2 and condition[0] in hyper


def _hyper(node: ast.ClassDef, where: str) -> dict[str, Hyper]:
    init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if init is None:
        return {}
    if problem := _unreadable(init.args):
        raise UserError(f"{where}: {problem}")
    out = {}
    for arg, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True):
        try:
            value = ast.literal_eval(default)  # type: ignore[arg-type]
            kind, choices = _kind(arg.annotation)
            # in its own type: the default of `x: float = 4` and `x: 4` in the sweep file are the same science
            out[arg.arg] = Hyper(kind, choices, Hyper(kind, choices, None).check(value))
        except _NOT_LITERAL as e:
            why = e if default is not None else "it has none"
            if default is not None and not str(e).startswith(("its type", "expected", "unknown")):
                why = f"its default is {shorten(ast.unparse(default))[1:-1]}"
            raise UserError(
                f"{where}: hyper-parameter {arg.arg!r} needs a type (float, int, bool, str or Literal[...]) "
                f"and a literal default: {why}"
            ) from None
    return out


def _unreadable(args: ast.arguments) -> str | None:
    """Return what keeps arguments of ``__init__`` from being hyper-parameters; None: nothing does."""
    positional = [arg.arg for arg in (*args.posonlyargs, *args.args)]
    if starred := [f"{'*' * stars}{arg.arg}" for stars, arg in ((1, args.vararg), (2, args.kwarg)) if arg]:
        return f"`__init__` takes {starred[0]}, which the planner cannot read; name each hyper-parameter instead"
    if extra := positional[3:]:
        return (
            f"hyper-parameters must be keyword-only, found {', '.join(extra)}; put a * before them: "
            f"def __init__({', '.join(positional[:3])}, *, {extra[0]}: float = 1.0)"
        )
    if len(positional) < 3:
        return "`__init__` must take the models: def __init__(self, student, teacher)"
    return None


def _kind(annotation: ast.expr | None) -> tuple[str, tuple[Any, ...]]:
    if isinstance(annotation, ast.Name) and annotation.id in ("float", "int", "bool", "str"):
        return annotation.id, ()
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).split(".")[-1] == "Literal":
        value = ast.literal_eval(annotation.slice)
        return "choice", value if isinstance(value, tuple) else (value,)
    raise ValueError("its type is " + (ast.unparse(annotation) if annotation else "missing"))

"""Models of the user's own, ``package.module:Name``: classes and functions, described without running their source."""

import ast
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from harness.errors import UserError, unknown
from harness.spec.library_models import is_library_model
from harness.spec.source_code import OwnCode, find_module, parse

GIVEN = ("num_classes", "in_channels")  # arguments that the dataset decides
_MOST_STEPS = 20  # from a name that is imported to its definition
_NOT_LITERAL = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError)  # all that literal_eval may raise
_NO_DEFAULT = object()


@dataclass(frozen=True)
class Argument:
    """An argument of a constructor: its annotation where that is a name, and its default where that is a literal."""

    annotation: str = ""
    default: Any = _NO_DEFAULT
    is_required: bool = False

    def typed(self, value: Any) -> Any:
        """Return a number as the argument takes it: 1 and 1.0 are one value of an argument, and of its model."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        kind = self.annotation or type(self.default).__name__
        if number and kind == "float":
            return float(value)
        return int(value) if number and kind == "int" and value == int(value) else value

    def is_default(self, value: Any) -> bool:
        """Return whether a value is the default, so that it need not be stated."""
        default = list(self.default) if isinstance(self.default, tuple) else self.typed(self.default)
        return type(default) is type(value) and bool(default == value)


@dataclass(frozen=True)
class Signature:
    """The arguments of a model's class or function that are given by name."""

    arguments: dict[str, Argument] = field(default_factory=dict)
    is_open: bool = False  # it takes others too, by ``**kwargs``, or cannot be read

    def takes(self, name: str) -> bool:
        """Return whether an argument may be given."""
        return name in self.arguments or self.is_open

    def normal_form(self, name: str, params: dict[str, Any], fixed: tuple[str, ...] = GIVEN) -> dict[str, Any]:
        """Return the arguments that a sweep states for the model ``name``, checked, without those that are defaults.

        Raises:
            ValueError: there is no such argument, it is not the user's to state, or one without a default is missing.
        """
        free = [key for key in self.arguments if key not in fixed]
        for key in params:
            if key in fixed:
                raise ValueError(f"{name}: {key} is set already, by the dataset or the model's name; leave it out")
            if not self.takes(key):
                raise ValueError(f"{name}: {unknown('argument', key, free)}")
        for key in free:
            if self.arguments[key].is_required and key not in params:
                how = f"write {{name: {name}, params: {{{key}: ...}}}}"
                raise ValueError(f"{name}: its argument {key} has no default; {how}")
        known = {key: self.arguments.get(key, Argument()) for key in params}
        typed = {key: known[key].typed(value) for key, value in params.items()}
        return {key: value for key, value in typed.items() if not known[key].is_default(value)}


UNREADABLE = Signature(is_open=True)


def is_own_model(model: str) -> bool:
    """Return whether a model, with arguments or without, is named ``package.module:Name``."""
    name = model.partition("(")[0]
    return ":" in name and not is_library_model(name)


def code_of(model: str) -> OwnCode:
    """Return the source of a model of the user's own."""
    return OwnCode("model", model.partition("(")[0].strip())


def source_of(model: str) -> str | None:
    """Return the hash of the source of a model of the user's own; None for others.

    Raises:
        UserError: it cannot be read.
    """
    return code_of(model).version() if is_own_model(model) else None


def describe(name: str) -> Signature:
    """Return what ``package.module:Name`` takes.

    Raises:
        UserError: there is no such module or name, or it does not take num_classes.
    """
    own = OwnCode("model", name)
    _refuse_standard_library(own)
    signature = _defined(own.module, own.object_name, own, _MOST_STEPS)
    if not signature.takes("num_classes"):
        raise UserError(
            f"{own}: must take num_classes, the dataset's number of classes: "
            f"`def __init__(self, num_classes)` of a class, `def {own.object_name}(num_classes)` of a function"
        )
    return signature


def of_function(tree: ast.Module, name: str) -> Signature:
    """Return the signature of a class or function of a module of the harness or of a library."""
    kinds = ast.FunctionDef | ast.ClassDef
    node = next(n for n in tree.body if isinstance(n, kinds) and n.name == name)
    return _of_arguments(node.args, 0) if isinstance(node, ast.FunctionDef) else _of_class(node, "", _MOST_STEPS)


def _refuse_standard_library(own: OwnCode) -> None:
    if own.module.partition(".")[0] in sys.stdlib_module_names:
        raise UserError(f"{own}: {own.module} is a module of Python itself, not yours")


def _defined(module: str, name: str, own: OwnCode, steps: int) -> Signature:
    """Return the signature of what a module calls ``name``, wherever it is defined.

    Raises:
        UserError: the module does not have it.
    """
    file = OwnCode(own.kind, f"{module}:{name}").file
    body = list(_outermost(parse(file).body))
    for node in reversed(body):
        match node:
            case ast.FunctionDef(name=str(found)) if found == name:
                return _of_arguments(node.args, 0)
            case ast.ClassDef(name=str(found)) if found == name:
                return _of_class(node, module, steps)
            case ast.Assign([ast.Name(found)], value) | ast.AnnAssign(ast.Name(found), value=ast.expr() as value):
                if found == name:
                    return _of_value(value, module, own, steps)
            case ast.ImportFrom() | ast.Import():
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return _of_import(node, alias, module, file.name == "__init__.py", own, steps)
    if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in body):
        return UNREADABLE  # what it has is known when it is imported
    names = [n.name for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    nested = next((n.name for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef) and _holds(n, name)), None)
    hint = f"; it is inside {nested}: only a name of the module itself can be imported" if nested else ""
    raise UserError(f"{own}: {unknown('class or function', name, names)}{hint}")


def _holds(node: ast.AST, name: str) -> bool:
    """Return whether a class or function is defined inside another."""
    inner = (n.name for n in ast.walk(node) if isinstance(n, ast.ClassDef | ast.FunctionDef) and n is not node)
    return name.rpartition(".")[2] in inner


def _outermost(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements by which a module gets its names, those under ``if`` and ``try`` too."""
    for node in body:
        yield node
        for part in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try | ast.With):
                yield from _outermost(getattr(node, part, []))
        for handler in getattr(node, "handlers", []):
            yield from _outermost(handler.body)


def _of_value(value: ast.expr, module: str, own: OwnCode, steps: int) -> Signature:
    """Return the signature of what is assigned to a name: a lambda, another name, or what cannot be read."""
    if isinstance(value, ast.Lambda):
        return _of_arguments(value.args, 0)
    if isinstance(value, ast.Name) and steps:
        with suppress(UserError):
            return _defined(module, value.id, own, steps - 1)
    return UNREADABLE


def _of_import(
    node: ast.Import | ast.ImportFrom, alias: ast.alias, module: str, is_package: bool, own: OwnCode, steps: int
) -> Signature:
    """Return the signature of what is imported from another module."""
    if isinstance(node, ast.Import) or not steps:
        return UNREADABLE
    package = module.split(".") if is_package else module.split(".")[:-1]
    above = package[: len(package) - (node.level - 1)] if node.level else []
    source = ".".join([*above, *filter(None, [node.module])])
    if find_module(source) is None:
        return UNREADABLE
    with suppress(UserError):
        return _defined(source, alias.name, own, steps - 1)
    return UNREADABLE


def _of_class(node: ast.ClassDef, module: str, steps: int) -> Signature:
    """Return the signature of a class: of its own ``__init__``, of its fields if it is a dataclass, or of a base's."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _of_arguments(item.args, 1)
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
        return Signature({f.target.id: _argument(f.annotation, f.value) for f in fields})  # type: ignore[union-attr]
    base = node.bases[0] if len(node.bases) == 1 else None
    if isinstance(base, ast.Attribute) and base.attr == "Module":
        return Signature()
    if isinstance(base, ast.Name) and steps and module:
        with suppress(UserError):
            return _defined(module, base.id, OwnCode("model", f"{module}:{base.id}"), steps - 1)
    return UNREADABLE


def _of_arguments(args: ast.arguments, skipped: int) -> Signature:
    """Return the signature that a function states; ``skipped``: its first arguments, such as ``self``."""
    positional = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    pairs = list(zip(positional, defaults, strict=True))[max(skipped, len(args.posonlyargs)) :]
    pairs += zip(args.kwonlyargs, args.kw_defaults, strict=True)
    arguments = {arg.arg: _argument(arg.annotation, default) for arg, default in pairs}
    return Signature(arguments, is_open=args.kwarg is not None)


def _argument(annotation: ast.expr | None, default: ast.expr | None) -> Argument:
    name = annotation.id if isinstance(annotation, ast.Name) else ""
    if default is None:
        return Argument(name, is_required=True)
    try:
        return Argument(name, ast.literal_eval(default))
    except _NOT_LITERAL:
        return Argument(name)

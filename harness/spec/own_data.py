"""Classes of a user's own data, ``package.module:Class``, known from their source: none is imported here."""

import ast

from harness.errors import UserError, unknown
from harness.phrases import some
from harness.spec.source_code import OwnCode, parse

STATED = ("classes", "mean", "std")  # also train and test, which may be inherited from elsewhere


def code_of(name: str) -> OwnCode:
    """Return the source of a class of data, named with its arguments or without."""
    return OwnCode("dataset", name.partition("(")[0].strip())


def source_hash(name: str) -> str:
    """Return a hash of the code of a class, its helper modules included.

    Raises:
        UserError: there is no such module, or no such class in it.
    """
    code = code_of(name)
    _check_class(code.name, parse(code.file))
    return code.version()


def _check_class(name: str, tree: ast.Module) -> None:
    """Check that a module has a class that states what a dataset does: no other code can be named, such as Python's."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if (wanted := name.partition(":")[2]) not in classes:
        raise UserError(f"dataset {name!r}: {unknown('class', wanted, classes)}")
    waiting, stated = [wanted], set[str]()
    while waiting:
        if (node := classes.pop(waiting.pop(), None)) is not None:
            waiting += [base.id for base in node.bases if isinstance(base, ast.Name)]
            stated |= _stated(node)
    if missing := [key for key in STATED if key not in stated]:
        raise UserError(
            f"dataset {name!r}: states no {some(missing)}; expected {', '.join(STATED)} in the class, or in one of its "
            "module that it is derived from, see docs/your-own-data.md"
        )


def _stated(node: ast.ClassDef) -> set[str]:
    """Return the names of what a class assigns or defines in its body, and what its methods assign to ``self``."""
    names = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    for part in ast.walk(node):
        if isinstance(part, ast.Name | ast.Attribute) and isinstance(part.ctx, ast.Store):
            names.add(part.id if isinstance(part, ast.Name) else part.attr)
    return names

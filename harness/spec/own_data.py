"""Classes of a user's own data, ``package.module:Class``, known from their source: none is imported here."""

import ast
from pathlib import Path

from harness.errors import UserError, unknown
from harness.phrases import some
from harness.spec import methods

STATED = ("classes", "mean", "std")  # also train and test, which may be inherited from elsewhere


def source_hash(name: str) -> str:
    """Return a hash of the code of a class.

    Raises:
        UserError: there is no such module, or no such class in it.
    """
    tree = methods._parse(source_file(name))
    _check_class(name, tree)
    return methods._source_hash(tree)


def source_file(name: str) -> Path:
    """Return the file of a class's module.

    Raises:
        UserError: there is no such module.
    """
    module = name.partition(":")[0]
    spec = methods._find(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise UserError(f"dataset {name!r}: no module {module!r} on the Python path (the current folder is on it)")
    return Path(spec.origin)


def refuse_class_in(store: Path, name: str) -> None:
    """Refuse a class whose module lies in a store, where others may put files; the current folder is exempt.

    Raises:
        UserError: it lies there, or there is no such module.
    """
    file, root = source_file(name).resolve(), store.resolve()
    if file.is_relative_to(root) and root != Path.cwd():
        raise UserError(f"dataset {name!r}: {file} is in the store, from which no code is run: move it out")


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

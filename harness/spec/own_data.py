"""Classes of a user's own data, ``package.module:Class``, known from their source: none is imported here."""

import ast
from pathlib import Path

from harness.errors import UserError, unknown
from harness.spec import methods


def source_hash(name: str) -> str:
    """Return a hash of the code of a class.

    Raises:
        UserError: there is no such module, or no such class in it.
    """
    tree = methods._parse(source_file(name))
    names = [n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    if (wanted := name.partition(":")[2]) not in [*names, *_assigned(tree)]:
        raise UserError(f"dataset {name!r}: {unknown('class', wanted, names)}")
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


def _assigned(tree: ast.Module) -> list[str]:
    """Return the names that a module assigns or imports: a class may be made by a call, or come from elsewhere."""
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names += [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
    return names

"""Classes of a user's own data, ``package.module:Class``, known from their source: none is imported here."""

import ast

from harness.errors import UserError, unknown
from harness.spec.source_code import OwnCode, parse


def code_of(name: str) -> OwnCode:
    """Return the source of a class of data, named with its arguments or without."""
    return OwnCode("dataset", name.partition("(")[0].strip())


def source_hash(name: str) -> str:
    """Return a hash of the code of a class, helper modules included.

    Raises:
        UserError: there is no such module, or no such class in it.
    """
    code = code_of(name)
    tree = parse(code.file)
    names = [n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    if code.object_name not in [*names, *_assigned(tree)]:
        raise UserError(f"{code}: {unknown('class', code.object_name, names)}")
    return code.version()


def _assigned(tree: ast.Module) -> list[str]:
    """Return the names that a module assigns or imports: a class may be made by a call, or come from elsewhere."""
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names += [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
    return names

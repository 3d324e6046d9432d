"""Source code of a user's own, such as ``package.module:Name``: found, read and hashed without running any of it.

Its identity is that of its module and of the modules of the same user that this one imports, one by the other: those of
the same outermost package, and those that lie below the same folder. Installed packages, Python's own modules and the
harness's are left out.
"""

import ast
import difflib
import hashlib
import importlib
import importlib.util
import json
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from harness.errors import UserError, shorten

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("harness", "methods", "slurm")  # whose code is known by its version
_INSTALLED = {"site-packages", "dist-packages"}


@dataclass(frozen=True)
class OwnCode:
    """A class or function of the user's own, by its kind in messages (``method``) and its name."""

    kind: str
    name: str  # "package.module:Name"

    def __str__(self) -> str:
        return f"{self.kind} {shorten(self.name)}"

    @property
    def module(self) -> str:
        return self.name.partition(":")[0]

    @property
    def object_name(self) -> str:
        return self.name.partition(":")[2]

    @property
    def file(self) -> Path:
        """The file of its module.

        Raises:
            UserError: there is no such module.
        """
        module = self.module
        if not all(part.isidentifier() for part in module.split(".")):
            raise UserError(f"{self}: expected a name such as 'package.module:Name'")
        spec = find_module(module)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            text = f"{self}: no module {module!r} on the Python path (the current folder is on it)"
            hint = f"; write {module.removesuffix('.py')}:{self.object_name}" if module.endswith(".py") else ""
            raise UserError(text + (hint or _nearest_module(module)))
        return Path(spec.origin)

    def modules(self) -> dict[str, Path]:
        """Return its module and those that it imports of the same user, by their names, with their files.

        Raises:
            UserError: there is no such module, or one of them cannot be read.
        """
        return _imported(self.module, self.file)

    def places(self) -> dict[str, Path]:
        """Return the files of ``modules`` by their places in a folder from which they can be imported."""
        places = {}
        for module, file in self.modules().items():
            end = "/__init__.py" if file.name == "__init__.py" else ".py"
            places[module.replace(".", "/") + end] = file
        return places

    def version(self) -> str:
        """Return a hash of the code of all its modules: comments, docstrings and layout are left out.

        Raises:
            UserError: as ``modules``.
        """
        modules = self.modules()
        codes = {name: code_of(parse(file)) for name, file in modules.items()}
        own = codes.pop(self.module)
        helpers = {name: code for name, code in codes.items() if code}
        text = json.dumps([own, helpers], sort_keys=True) if helpers else own
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]

    def check_version(self, version: int | str | None) -> None:
        """Check that the code is still what a run was planned with.

        Raises:
            UserError: it has changed.
        """
        if version not in (None, found := self.version()):
            raise UserError(f"{self}: its source has changed since the run was planned ({found}, planned {version})")

    def refuse_in(self, store: Path, own_code: Path = CHECKOUT) -> None:
        """Refuse code that lies in a store, where others may put files, and name them too.

        A store that is the current folder and the copy of the code that a cluster's jobs run from are exempt.

        Raises:
            UserError: it lies there, or there is no such module.
        """
        root, copied = store.resolve(), own_code.resolve()
        for file in (path.resolve() for path in (self.file, *self.modules().values())):
            is_copy = copied.is_relative_to(root) and file.is_relative_to(copied)
            if file.is_relative_to(root) and not is_copy and root != Path.cwd():
                raise UserError(f"{self}: {file} is in the store, from which no code is run: move it out")

    def load(self) -> Any:
        """Import the module and return the object. The name must be one that the user has given: this runs its code.

        Raises whatever the module raises.

        Raises:
            UserError: there is no such object, or Python imports another file than planning has read.
        """
        add_current_folder_to_path()
        module, modules = importlib.import_module(self.module), self.modules()
        for name, file in modules.items():
            imported = getattr(sys.modules.get(name), "__file__", None)
            if imported is not None and Path(imported).resolve() != file.resolve():
                raise UserError(f"{self}: {file} is hidden by {imported}, which Python has as {name!r}: rename it")
        try:
            return getattr(module, self.object_name)
        except AttributeError:
            raise UserError(f"{self}: module {self.module!r} has no {self.object_name!r}") from None

    def place_of(self, error: BaseException) -> str:
        """Return the last line of this code that an error has come through as `` (FILE:LINE)``, if there is one."""
        files: set[Path] = set()
        with suppress(UserError):  # it may be what the error is about
            files = {path.resolve() for path in self.modules().values()}
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f" ({frame.filename}:{frame.lineno})" for frame in frames if Path(frame.filename).resolve() in files]
        return lines[-1] if lines else ""


def add_current_folder_to_path() -> None:
    """Let this process import a user's code from the current folder, where ``find_module`` finds it."""
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)


def find_module(module: str) -> ModuleSpec | None:
    """Find a module where an import would, without running the packages above it.

    The current folder comes first, unless it has another place on the path, as in a job that runs from a copy.
    """
    top, *below = module.split(".")
    here = str(Path.cwd())
    try:
        spec = PathFinder.find_spec(
            top, sys.path if here in sys.path else [here, *sys.path]
        ) or importlib.util.find_spec(top)
        for i in range(len(below)):
            if spec is None or spec.submodule_search_locations is None:
                return None
            spec = PathFinder.find_spec(".".join([top, *below[: i + 1]]), list(spec.submodule_search_locations))
    except (ImportError, ValueError):
        return None
    return spec


def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a Python file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as e:
        raise UserError(f"{path}: not a readable Python file: {e}") from None


def code_of(tree: ast.Module) -> str:
    """Return the code without comments, docstrings and layout: they may change without a new version.

    The tree loses its docstrings.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or ([] if node is tree else [ast.Pass()])
    return ast.unparse(tree)


def _imported(module: str, file: Path) -> dict[str, Path]:
    """Return a module and those of the same user that it imports, in the order in which they are found."""
    top = module.partition(".")[0]
    root = file.parents[module.count(".") + (file.name == "__init__.py")]
    modules = {module: file}
    waiting = [*_parents(module), *_imports(parse(file), module, file)] if top not in PACKAGES else []
    looked_at = {"", module}
    of_user = {top: True}
    while waiting:
        name = waiting.pop()
        if name in looked_at:
            continue
        looked_at.add(name)
        outermost = name.partition(".")[0]
        if outermost not in of_user:
            of_user[outermost] = _is_of_user(outermost, root)
        spec = find_module(name) if of_user[outermost] else None
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            continue
        modules[name] = Path(spec.origin)
        waiting += [*_parents(name), *_imports(parse(modules[name]), name, modules[name])]
    return modules


def _parents(module: str) -> Iterator[str]:
    parts = module.split(".")
    return (".".join(parts[:i]) for i in range(1, len(parts)))


def _is_of_user(top: str, root: Path) -> bool:
    """Return whether an outermost module or package lies below a folder, and is not installed there."""
    if top in PACKAGES or top in sys.stdlib_module_names or (spec := find_module(top)) is None:
        return False
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return all(Path(p).is_relative_to(root) and _INSTALLED.isdisjoint(Path(p).parts) for p in places)


def _imports(tree: ast.Module, module: str, file: Path) -> Iterator[str]:
    """Yield the names of what may be modules that a module imports, in functions too."""
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(base, names, level):
                above = package[: len(package) - (level - 1)] if level else []
                start = ".".join([*above, *filter(None, [base])])
                yield from (start, *(f"{start}.{alias.name}" for alias in names))
            case ast.Call(ast.Name("__import__" | "import_module") | ast.Attribute(attr="import_module"), [first, *_]):
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    level = len(first.value) - len(first.value.lstrip("."))
                    above = package[: len(package) - (level - 1)] if level else []
                    yield ".".join([*above, first.value[level:]])


def _nearest_module(module: str) -> str:
    """Return a hint at a module of the same package whose name is near."""
    parent, _, last = module.rpartition(".")
    spec = find_module(parent) if parent else None
    folders: Iterable[str] = [str(Path.cwd())] if not parent else (spec and spec.submodule_search_locations) or ()
    names = [p.stem for folder in folders for p in Path(folder).glob("*.py")]
    names += [p.parent.name for folder in folders for p in Path(folder).glob("*/*.py")]
    near = difflib.get_close_matches(last, sorted(set(names) - {"__init__"}), n=1)
    return f"; did you mean {f'{parent}.{near[0]}' if parent else near[0]!r}?" if near else ""

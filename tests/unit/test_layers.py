"""The layout: the folders of harness/, imports that point one way, and helpers of tests in tests/support."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.cli import REPO

COMMANDS = {
    "sweep", "tune", "list", "status", "report", "leaderboard", "prepare", "evaluate", "transfer", "export", "verify",
    "compact", "diff", "merge",
}  # fmt: skip
SUPPORTING_MODULES = {"__main__", "api", "errors", "hardware", "phrases", "rng"}
FOLDERS = {
    "console": set(),
    "planning": {"cost"},
    "spec": {"tasks"},
    "data": {"augment", "prepare", "load"},
    "models": {"detection"},
    "training": {"cuda", "distributed", "engines", "tasks"},
    "store": set(),
    "tracking": set(),
    "reporting": {"tables", "published", "paper", "figures", "leaderboard", "export"},
}
# From the bottom. A part imports only parts of lower layers, not of its own; commands are on top.
LAYERS = (
    {"harness.errors", "harness.hardware", "harness.phrases", "harness.rng"},
    {"harness.spec"},
    {"harness.store", "methods"},
    {"harness.data", "harness.models", "harness.console"},
    {"harness.training", "harness.reporting"},
    {"slurm", "harness.api", "harness.tracking"},
    {"harness.planning", "harness"},
    {f"harness.{command}" for command in COMMANDS} | {"harness.__main__"},
)
LEVELS = {part: level for level, parts in enumerate(LAYERS) for part in parts}


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_name(file): file
    for package in ("harness", "methods", "slurm")
    for file in sorted((REPO / package).rglob("*.py"))
}


def part(module: str) -> str:
    """Return the part of the layout that a module belongs to: a top-level package or something right below harness."""
    return ".".join(module.split(".")[: 2 if module.startswith("harness.") else 1])


def imports(file: Path) -> Iterator[str]:
    """Yield our modules that a file imports, in functions and for type checkers too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in MODULES else node.module


IMPORTS = {module: set(imports(file)) - {module} for module, file in MODULES.items()}


def test_harness_has_the_folders_and_modules_of_the_layout() -> None:
    present = {m.split(".")[1] for m in MODULES if m.count(".") == 1 and m.startswith("harness.")}
    assert present == COMMANDS | SUPPORTING_MODULES | FOLDERS.keys()
    for folder, inside in FOLDERS.items():
        assert {p.parent.name for p in (REPO / "harness" / folder).glob("*/*.py")} == inside, folder
        assert not list((REPO / "harness" / folder).glob("*/*/*.py")), folder


def test_imports_have_no_circle() -> None:
    assert sum(map(len, IMPORTS.values())) > 500
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(error.args[1])}")


def test_imports_point_down() -> None:
    assert LEVELS.keys() == {part(module) for module in MODULES}
    upward = [
        f"{module} imports {imported}"
        for module, imported_modules in IMPORTS.items()
        for imported in imported_modules
        if part(module) != part(imported) and LEVELS[part(module)] <= LEVELS[part(imported)]
    ]
    assert not upward


def test_methods_import_nothing_of_the_harness() -> None:
    of_methods = {m: imported for m, imported in IMPORTS.items() if part(m) == "methods"}
    assert len(of_methods) > 24
    assert not [m for m, imported in of_methods.items() if any(part(i) != "methods" for i in imported)]


def test_loading_and_preparing_data_know_nothing_of_each_other() -> None:
    pairs = (("harness.data.load.", "harness.data.prepare."), ("harness.data.prepare.", "harness.data.load."))
    for one, other in pairs:
        mixed = [
            m for m, imported in IMPORTS.items() if m.startswith(one) and any(x.startswith(other) for x in imported)
        ]
        assert not mixed


def test_tests_share_helpers_through_support_only() -> None:
    """A test module imports no other and no conftest, nor does a program that it starts; torture is one. The golden
    cases and their adapters lie beside the one test that joins them."""
    files = sorted((REPO / "tests").rglob("*.py"))
    assert len(files) > 100
    for file in files:
        own = r"|golden import|golden\.\w*cases" if file.parent.name == "golden" else ""
        outside = re.findall(
            rf"^\s*(?:from|import) (tests\b(?!\.(?:support\b|torture\b{own})).*)", file.read_text(), re.MULTILINE
        )
        assert not outside, f"{file}: move what it needs of {outside} to tests/support"

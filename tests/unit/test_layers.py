"""Dependencies point one way: commands -> slurm, reporting, training -> store, data, models, methods -> spec."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS, JOBS, PARTS, SPEC, ERRORS = range(4, -1, -1)
LAYER = {
    "slurm": JOBS,
    "harness.reporting": JOBS,
    "harness.training": JOBS,
    "harness.store": PARTS,
    "harness.data": PARTS,
    "harness.models": PARTS,
    "methods": PARTS,
    "harness.spec": SPEC,
    "harness.errors": ERRORS,
    "harness.rng": ERRORS,
}
# What a job runs is trained by harness.training; the local and the cluster queue share slurm with it.
ALLOWED = {("slurm", "harness.training")}


def owner(module: str) -> str:
    """The part of the house a module belongs to; a command's own module is its own part."""
    parts = module.split(".")
    return parts[0] if parts[0] != "harness" else ".".join(parts[:2])


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module if "." in node.module else f"{node.module}.{a.name}" for a in node.names}
    return {m for m in found if m.split(".")[0] in ("harness", "methods", "slurm")}


def modules() -> list[Path]:
    return [p for package in ("harness", "methods", "slurm") for p in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_import_points_up_or_sideways(path: Path) -> None:
    here = owner(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for module in imports(path):
        there = owner(module)
        if here == there or (here, there) in ALLOWED:
            continue
        above, below = LAYER.get(here, COMMANDS), LAYER.get(there, COMMANDS)
        sideways = above == below and above in (COMMANDS, PARTS)
        assert above > below or sideways, f"{path}: {here} may not import {module}"


def test_methods_know_nothing_of_the_harness() -> None:
    for path in (ROOT / "methods").glob("*.py"):
        assert all(m.startswith("methods") for m in imports(path)), path


def test_tests_share_helpers_through_support_only() -> None:
    """A test module imports no other and no conftest, and neither does a program that it starts."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        outside = re.findall(r"^\s*(?:from|import) (tests\b(?!\.support\b).*)", path.read_text(), re.MULTILINE)
        assert not outside, f"{path}: move what it needs of {outside} to tests/support"

"""Seed single mutations in the code and find out which of them the tests catch.

    python -m tests.support.mutations [--count 60] [--seed 0] [--also-in COMMIT] [--results mutations.jsonl]

Each mutation is one change of an operator, a number or a condition, or one statement left out. It is applied to a copy
of the last commit, and the tests run there until one fails: first those that import the changed module, then the other
quick ones, then all. Results are appended to a file of JSON lines; a mutation that is in it already is not tried again.
``--also-in`` takes only lines that another commit has too, so that two suites can be compared.
"""

import argparse
import ast
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support.cli import REPO

PACKAGES = ("harness", "methods", "slurm")
HANGS = 1800  # seconds of one call of pytest
OPERATORS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"),
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"),
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"),
    ast.And: ("and", "or"), ast.Or: ("or", "and"),
}  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """One change of a line of code."""

    file: str  # relative to the repository
    line: int
    before: str
    after: str

    def apply(self, root: Path) -> None:
        path = root / self.file
        lines = path.read_text().split("\n")
        assert lines[self.line - 1] == self.before, self
        lines[self.line - 1] = self.after
        path.write_text("\n".join(lines))


def mutations(file: str, text: str) -> Iterator[Mutation]:
    """Yield every mutation of a file that stays within one line."""
    lines = text.split("\n")

    def change(start: tuple[int, int], end: tuple[int, int], old: str, new: str) -> Iterator[Mutation]:
        (line, begin), (last, stop) = start, end
        before = lines[line - 1]
        # Columns count bytes.
        if line == last and before.isascii() and before[begin:stop].count(old) == 1:
            part = before[begin:stop].replace(old, new)
            yield Mutation(file, line, before, before[:begin] + part + before[stop:])

    def bounds(node: ast.expr | ast.stmt) -> tuple[tuple[int, int], tuple[int, int]]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)

    def between(left: ast.expr, operator: ast.AST, right: ast.expr) -> Iterator[Mutation]:
        if type(operator) in OPERATORS:
            yield from change(bounds(left)[1], bounds(right)[0], *OPERATORS[type(operator)])

    def whole(node: ast.expr | ast.stmt, new: str) -> Iterator[Mutation]:
        if source := ast.get_source_segment(text, node):
            yield from change(*bounds(node), source, new)

    for node in _code(ast.parse(text)):
        match node:
            case ast.Compare(left, [operator], [right]) | ast.BinOp(left, operator, right):
                yield from between(left, operator, right)
            case ast.BoolOp(operator, [left, right]):
                yield from between(left, operator, right)
            case ast.UnaryOp(ast.Not(), operand):
                yield from whole(node, f"({ast.unparse(operand)})")
            case ast.Constant(bool(value)):
                yield from whole(node, str(not value))
            case ast.Constant(int(value) | float(value)):
                yield from whole(node, repr(value + 1))
            case ast.If(test) | ast.IfExp(test) if not isinstance(test, ast.Compare | ast.UnaryOp):
                yield from whole(test, f"(not ({ast.unparse(test)}))")
            case ast.Expr(ast.Call()) | ast.AugAssign():
                yield from whole(node, "pass")


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that are run when a module is used: no annotations, no ``if __name__ == "__main__"``."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns") or (isinstance(tree, ast.AnnAssign) and name == "target"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.AST) and not (isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)):
                yield node
                yield from _code(node)


def choose(count: int, seed: int, also_in: str | None) -> list[Mutation]:
    """Return mutations of the last commit, drawn from all with equal chances."""
    found = []
    for file in _git("ls-files", *(f"{p}/**.py" for p in PACKAGES)).splitlines():
        other = set(_git("show", f"{also_in}:{file}", check=False).split("\n")) if also_in else None
        found += [m for m in mutations(file, _git("show", f"HEAD:{file}")) if other is None or m.before in other]
    return random.Random(seed).sample(found, count)


def stages(root: Path, mutation: Mutation) -> list[list[str]]:
    """Return pytest's arguments, in the order of the calls."""
    module = mutation.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    package, _, name = module.rpartition(".")
    imports = re.compile(rf"from {module} import|import {module}\n|from {package} import .*\b{name}\b")
    quick = [p for folder in ("unit", "golden") for p in sorted((root / "tests" / folder).glob("test_*.py"))]
    near = [str(p) for p in quick if imports.search(p.read_text())]
    return [*([[*near, "-p", "no:xdist"]] if near else []), ["tests/unit", "tests/golden"], ["tests"]]


def caught_by(root: Path, mutation: Mutation) -> str | None:
    """Return the first test that fails with the mutation, or None."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    for arguments in stages(root, mutation):
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "--tb=no", *arguments]
        try:
            done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=HANGS)
        except subprocess.TimeoutExpired:
            return "hangs"
        if done.returncode:
            failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
            return failed[0] if failed else (done.stdout + done.stderr).strip().splitlines()[-1]
    return None


def _git(*arguments: str, check: bool = True) -> str:
    return subprocess.run(["git", *arguments], cwd=REPO, check=check, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--also-in", metavar="COMMIT")
    parser.add_argument("--results", type=Path, default=Path("mutations.jsonl"))
    parser.add_argument("--list", action="store_true", help="print the mutations and run nothing")
    args = parser.parse_args()
    chosen = choose(args.count, args.seed, args.also_in)
    if args.list:
        print(*(f"{m.file}:{m.line}\n- {m.before}\n+ {m.after}" for m in chosen), sep="\n")
        return
    tried = (
        {json.loads(line)["mutation"] for line in args.results.read_text().splitlines()}
        if args.results.exists()
        else set()
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "copy"
        _git("clone", "--quiet", str(REPO), str(root))
        for mutation in chosen:
            key = json.dumps(asdict(mutation))
            if key in tried:
                continue
            original = (root / mutation.file).read_text()
            mutation.apply(root)
            caught = caught_by(root, mutation)
            (root / mutation.file).write_text(original)
            with args.results.open("a") as results:
                print(json.dumps({"mutation": key, "caught_by": caught}), file=results)
            print(f"{mutation.file}:{mutation.line}: {caught or 'NOT CAUGHT'}", flush=True)


if __name__ == "__main__":
    main()

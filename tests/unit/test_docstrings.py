"""Docstrings are sentences that stand without the name above them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import REPO

FRAGMENT = re.compile(r"(?:Of|Those|What|Which|Whether|As|How)\b")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def fragments(file: Path) -> Iterator[str]:
    """Yield ``line: first line`` of each docstring that begins like the answer to a question."""
    for node in ast.walk(ast.parse(file.read_text())):
        docstring = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
        if docstring and FRAGMENT.match(docstring):
            yield f"{getattr(node, 'lineno', 1)}: {docstring.splitlines()[0]}"


@pytest.mark.parametrize("folder", ["harness", "methods", "slurm", "benchmarks", "tests"])
def test_no_docstring_is_a_fragment(folder: str) -> None:
    files = sorted((REPO / folder).rglob("*.py"))
    assert files
    assert not [f"{file.relative_to(REPO)}:{fragment}" for file in files for fragment in fragments(file)]


def test_fragments_are_noticed(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        '"""Weights."""\nclass A:\n    """Whether A."""\n    def f(self):\n        """As above.\n        """\n'
    )
    assert list(fragments(file)) == ["2: Whether A.", "4: As above."]
    file.write_text('"""Of a run."""\ndef f():\n    """Assume that ``Of`` is text."""\n')
    assert list(fragments(file)) == ["1: Of a run."]

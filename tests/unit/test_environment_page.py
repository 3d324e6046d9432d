"""docs/environment.md lists every environment variable of the harness."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = re.compile(r"(?<![/\w])KD_[A-Z_]+")  # not a repository, as OWNER/KD_NAME


def names_in(*folders: str) -> set[str]:
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return {name for path in paths for name in VARIABLE.findall(path.read_text())}


def test_the_page_lists_every_variable() -> None:
    harness, tests = (ROOT / "docs/environment.md").read_text().split("## For the tests")
    of_harness, of_tests = ({name for name in re.findall(r"^\| `(\w+)`", part, re.M)} for part in (harness, tests))
    assert of_harness == names_in("harness", "slurm", "methods", "benchmarks")
    assert of_tests == names_in("tests") - of_harness

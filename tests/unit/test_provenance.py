"""Provenance in records: the commit, and errors of files that cannot be opened."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.store.parts import damage_as_error
from tests.support.cli import REPO


def test_an_installed_harness_has_no_commit_of_a_repository_around_it(tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(REPO / "harness", site / "harness")
    make_repository(tmp_path)
    assert git_state_of(site) == "('', False)"
    make_repository(site)
    assert len(git_state_of(site).split("'")[1]) == 40, "a checkout's own commit"


def make_repository(folder: Path) -> None:
    author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for command in (("init", "-q"), (*author, "commit", "-q", "--allow-empty", "-m", "first")):
        subprocess.run(["git", "-C", str(folder), *command], check=True)


def git_state_of(folder: Path) -> str:
    program = "from harness.store.provenance import git_state; print(git_state())"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.check_output([sys.executable, "-c", program], env=environment, cwd=folder, text=True).strip()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Failed to open local file"), "a.parquet: Permission denied"),
        (ValueError(), "a.parquet: not readable (ValueError); delete it"),
    ],
)
def test_a_record_that_cannot_be_opened_is_not_called_damaged(error: Exception, message: str) -> None:
    with pytest.raises(UserError) as raised, damage_as_error(Path("a.parquet"), "not readable", "delete it"):
        raise error
    assert str(raised.value) == message

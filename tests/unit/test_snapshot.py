"""The copy of the code that jobs run."""

import compileall
import contextlib
import errno
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from harness.spec.source_code import OwnCode
from harness.store.files import DiskFull
from slurm import snapshot
from tests.support.faults import faults


def test_what_has_changed_in_a_copy_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "PACKAGES", ())
    own = tmp_path / "own.py"
    own.write_text("VALUE = 1\n")
    take = partial(snapshot.take_snapshot, tmp_path / "code", [("own", own)])
    file = take() / "own.py"
    file.write_bytes(bytes(10))
    assert take() == file.parent and file.read_text() == own.read_text()
    assert file.stat().st_mtime_ns == own.stat().st_mtime_ns and not file.stat().st_mode & 0o022


def test_a_copy_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "PACKAGES", ())
    own, code = tmp_path / "own.py", tmp_path / "code"
    own.write_text("VALUE = 1\n")
    compileall.compile_file(own, quiet=1)
    code.mkdir()
    with faults(code) as counted:
        snapshot.take_snapshot(code, [("own", own)])
    for at, operation in enumerate(counted.operations):
        if operation.partition(" ")[0] in ("create", "write", "close", "rename"):
            shutil.rmtree(code)
            code.mkdir()
            with pytest.raises(DiskFull), faults(code, at, errno.ENOSPC, lasting=True):
                snapshot.take_snapshot(code, [("own", own)])
            assert not list(code.iterdir()), operation


def test_jobs_need_not_compile_it_again(tmp_path: Path) -> None:
    """Python takes the copied bytecode: it writes none of its own, and that of a changed module is not taken."""
    for package in snapshot.PACKAGES:
        compileall.compile_dir(snapshot.CHECKOUT / package, quiet=1)
    own = tmp_path / "own.py"
    own.write_text("VALUE = 1\n")
    compileall.compile_file(own, quiet=1)
    copy = snapshot.take_snapshot(tmp_path / "code", [("own", own)])
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.pyc")}
    assert {path.name.partition(".")[0] for path in before} >= {"own", "entry", "job"}
    modules = "import harness.training.job_order, slurm.entry, own; print(own.VALUE, own.__cached__)"
    command = [sys.executable, "-c", modules]
    printed = subprocess.check_output(command, cwd=copy, env={"PYTHONPATH": str(copy)}, text=True)
    assert printed == f"1 {next(path for path in before if path.name.startswith('own.'))}\n"
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*.pyc")} == before

    own.write_text("VALUE = 22\n")  # of another size than the bytecode says
    changed = snapshot.take_snapshot(tmp_path / "code", [("own", own)])
    assert changed != copy
    printed = subprocess.check_output(command, cwd=changed, env={"PYTHONPATH": str(changed)}, text=True)
    assert printed.startswith("22 ")


def test_the_users_own_code_has_the_same_version_in_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "PACKAGES", ())
    files = {
        "snap_nets/__init__.py": "A = 1\n",
        "snap_nets/tiny/__init__.py": "from ..blocks import f\nfrom snap_beside import g\ndef net(num_classes): ...\n",
        "snap_nets/blocks.py": "f = 1\n",
        "snap_nets/data/late.py": "h = 1\n",
        "snap_beside.py": "g = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    code = OwnCode("model", "snap_nets.tiny:net")
    with contextlib.chdir(tmp_path):
        planned = code.version()
        copy = snapshot.take_snapshot(tmp_path / "store/code", sorted(code.modules().items()))
    assert {str(p.relative_to(copy)) for p in copy.rglob("*.py")} == files.keys()
    with contextlib.chdir(copy):
        assert code.file.is_relative_to(copy)
        code.check_version(planned)

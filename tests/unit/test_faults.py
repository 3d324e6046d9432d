"""Errors of the file system: what is said names the path and the errno, and nothing is lost."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from harness.planning import watch
from harness.planning.cost import submissions
from harness.store import files, ownership
from harness.store.locks import Lock, is_locked
from harness.store.log_streams import open_log_streams
from harness.store.store import Store
from tests.support.cli import run_command
from tests.support.faults import faults
from tests.torture import errors


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    (path := tmp_path / "lock").touch()
    monkeypatch.setattr(fcntl, "flock", refuse)
    for call in (Lock(path).acquire, lambda: is_locked(path)):
        with pytest.raises(errors.UserError, match=rf"{path}: cannot be locked: {os.strerror(number)}; .*--results"):
            call()
    assert not [fd for fd in os.listdir("/proc/self/fd") if _target(fd) == str(path)], "left open"


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return ""


@pytest.mark.parametrize("kind", ["file", "loop", "broken link"])
def test_a_store_that_is_no_folder_is_one_message(tmp_path: Path, kind: str) -> None:
    (sweep := tmp_path / "sweep.yaml").write_text(json.dumps(errors.SWEEP))
    results = tmp_path / "results"
    if kind == "file":
        results.write_text("x")
    else:
        results.symlink_to(results if kind == "loop" else tmp_path / "none")
    commands = [("status", sweep), ("report",), ("leaderboard",), ("verify",), ("compact",), ("sweep", sweep, "--plan")]
    for name, *words in commands:
        result = run_command(name, *words, "--results", results)
        assert result.code in (0, 2) and "Traceback" not in result.err
        if result.code:
            assert result.err.splitlines()[-1].startswith("error: ") and str(tmp_path) in result.err
        else:  # nothing is there yet, and the first sweep makes it
            assert kind != "loop" and name in ("status", "sweep")


def test_a_log_on_a_full_disk_ends_no_process() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    program = f"from {open_log_streams.__module__} import open_log_streams as o; o(); print('x' * 10**5); print('y')"
    with open("/dev/full", "w") as full:
        assert subprocess.run([sys.executable, "-c", program], stdout=full, stderr=full, timeout=60).returncode == 0


def test_files_may_vanish_while_their_bytes_are_counted(tmp_path: Path) -> None:
    store, run_id = Store(tmp_path), "0" * 16
    store.checkpoints(run_id).mkdir(parents=True)
    for path in (store.checkpoints(run_id) / "a", store.student_weights(run_id)):
        path.write_bytes(b"x" * 100)
    with faults(tmp_path) as counted:
        assert submissions._bytes(store, run_id) == 200
    for at in range(len(counted.operations)):
        with faults(tmp_path, at, errno.ENOENT):
            assert submissions._bytes(store, run_id) <= 200


def test_progress_is_best_effort(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    Store(tmp_path).write_progress("0" * 16, epoch=1)


def test_what_cannot_be_read_is_no_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert files.entries(tmp_path / "none") == [] and not files.is_there(tmp_path / "none")
    with pytest.raises(OSError, match="symbolic links"):
        files.entries(tmp_path / "loop")
    with pytest.raises(OSError, match="symbolic links"):
        files.is_there(tmp_path / "loop" / "x")


@pytest.mark.parametrize(("command", "name"), [("verify", "runs"), ("leaderboard", "images")])
def test_a_command_takes_no_folder_for_empty_that_it_cannot_read(tmp_path: Path, command: str, name: str) -> None:
    bench = errors.make_store(tmp_path / "x")
    folder = bench.store.root / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.symlink_to(folder)
    result = run_command(command, "--results", bench.store.root)
    assert result.code == 2 and f"{folder}: {os.strerror(errno.ELOOP)}" in result.err


def test_a_private_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with faults(tmp_path) as found:
        assert ownership.read_private(path) == b"content"
    at = found.operations.index("read file")
    with faults(tmp_path, at, errno.ESTALE), pytest.raises(OSError, match=f"Stale file handle: '{path}'"):
        ownership.read_private(path)


def test_why_nothing_trains_may_stand_at_the_end_of_the_queues_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert watch._last_line(log) == ""
    log.write_text("earlier\njobs/a: Permission denied\n")
    assert watch._last_line(log) == f"; the end of {log}: jobs/a: Permission denied"

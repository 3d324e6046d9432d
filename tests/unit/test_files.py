"""Files of a store: durable when they are written, and locks that make their folder."""

import os
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.store import files, records
from harness.store.locks import Lock, is_locked
from harness.store.store import Store


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_and_its_folder_reach_the_disk_before_and_after_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    steps: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.replace
    path = tmp_path / "a" / "file"

    def noted_fsync(fd: int) -> None:
        steps.append(("fsync", "folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "file"))
        fsync(fd)

    def noted_replace(source: Path, target: Path) -> None:
        steps.append(("replace", Path(target).name))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    files.replace(path, lambda temporary: temporary.write_text("text"), durable)
    assert path.read_text() == "text" and [p.name for p in path.parent.iterdir()] == ["file"]
    renamed = ("replace", "file")
    assert steps == ([("fsync", "file"), renamed, ("fsync", "folder")] if durable else [renamed])


def test_a_lock_makes_the_folders_above_it_and_is_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "store" / "locks" / "run"
    first, second = Lock(path), Lock(path)
    assert first.acquire() and not second.acquire() and is_locked(path)
    first.release()
    assert second.acquire()
    second.release()
    assert not is_locked(path)


def test_only_the_end_of_a_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no space
        file.seek(0, os.SEEK_END)
        file.write(b"\na\xff\nlast\n")
    assert files.tail(log, 2) == "a\ufffd\nlast"
    assert files.tail(tmp_path / "none").startswith("(no log: ")


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert files.read_bytes(tmp_path / "pipe") == b"" and files.read_json(tmp_path / "pipe") is None
    assert not is_locked(tmp_path / "pipe")
    store = Store(tmp_path)
    store.records.mkdir()
    os.mkfifo(store.record("0123456789abcdef"))
    with pytest.raises(UserError, match="not a readable record"):
        records.read_loose(store, "0123456789abcdef")

"""Copies of datasets on a node's own disk: made once, whole, and read only by whom nobody else can mislead."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm import staging
from tests.support.disks import tmpfs
from tests.support.manifests import VALUE

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared dataset, of which 1,000 bytes are copied at a time, and beside it what is none of its files."""
    monkeypatch.setattr(staging, "_PIECE", 1000)
    (folder := tmp_path / "data").mkdir()
    (folder / "val.beton").write_bytes(CONTENT)
    (folder / "notes").write_text("mine")
    write_manifest(folder)
    return folder


def write_manifest(folder: Path, **changes: object) -> None:
    value = {**VALUE, "test": {**VALUE["test"], "bytes": len(CONTENT)}, **changes}
    (folder / "manifest.json").write_text(json.dumps(value))


def names(copy: Path) -> list[str]:
    return sorted(path.name for path in copy.iterdir())


def in_child(function: Callable[[], object]) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    return process


def test_a_copy_is_made_once_and_another_of_changed_data(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    first = staging.stage(data, "$SCRATCH/kd")
    assert first.parent == tmp_path / "scratch/kd" and names(first) == ["manifest.json", "val.beton"]
    assert (first / "val.beton").read_bytes() == CONTENT and not (first / "val.beton").stat().st_mode & 0o022
    os.utime(first, (0, 0))
    assert staging.stage(data, "$SCRATCH/kd") == first and first.stat().st_mtime > 0, "the time of its last use"
    out = capsys.readouterr().out.splitlines()
    assert out == [f"data staged to {first} (0.0 MB in 0 s)", f"data staged to {first} (already there)"]

    status = (data / "manifest.json").stat()
    write_manifest(data, source="0" * 16)
    os.utime(data / "manifest.json", ns=(status.st_atime_ns, status.st_mtime_ns))
    second = staging.stage(data, "$SCRATCH/kd")
    assert second != first and json.loads((second / "manifest.json").read_text())["source"] == "0" * 16

    (second / "val.beton").write_bytes(b"torn")  # or removed, as sites do with old files
    assert (staging.stage(data, "$SCRATCH/kd") / "val.beton").read_bytes() == CONTENT


def test_other_data_are_files(tmp_path: Path) -> None:
    (root := tmp_path / "root").mkdir()
    for name in ("train", "test", "other.tar"):
        (root / name).write_bytes(CONTENT)
    scratch = str(tmp_path / "scratch")
    assert names(staging.stage(root, scratch)) == ["test", "train"], "CIFAR-100's, beside another dataset"
    tar = staging.stage(root / "other.tar", scratch)
    assert tar.name == "other.tar" and tar.read_bytes() == CONTENT and names(tar.parent) == ["other.tar"]
    (root / "test").unlink()
    (root / "sub").mkdir()
    (root / "sub/a").symlink_to(root / "train")
    copy = staging.stage(root, scratch)
    assert names(copy) == ["other.tar", "sub", "train"] and not (copy / "sub/a").is_symlink()


def test_of_two_processes_one_copies(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = staging._pieces

    def slowly(file: int, at: int, size: int) -> Iterator[bytes]:
        for piece in pieces(file, at, size):
            time.sleep(0.03)
            yield piece

    monkeypatch.setattr(staging, "_pieces", slowly)
    both = [in_child(lambda: staging.stage(data, str(tmp_path / "scratch"))) for _ in range(2)]
    for process in both:
        process.join()
    out = capfd.readouterr().out
    assert [out.count(text) for text in ("waiting for a process", "MB in ", "(already there)")] == [1, 1, 1], out


def test_a_killed_copy_is_continued_and_never_read(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(file: int, at: int, size: int) -> Iterator[bytes]:
        yield os.pread(file, 3000, at)
        os.kill(os.getpid(), signal.SIGKILL)

    pieces, starts = staging._pieces, list[int]()
    (data / "manifest.json").rename(tmp_path / "away")  # so that there is one file
    (data / "notes").unlink()
    monkeypatch.setattr(staging, "_pieces", dying)
    process = in_child(lambda: staging.stage(data, str(tmp_path / "scratch")))
    process.join()
    (copy,) = (tmp_path / "scratch").glob("data-*")
    (part,) = names(copy)
    assert process.exitcode == -signal.SIGKILL and part.endswith(".part")
    (copy / part.replace(staging._boot(), "earlier")).write_bytes(b"of a machine that has crashed since")

    monkeypatch.setattr(staging, "_pieces", lambda file, at, size: (starts.append(at), pieces(file, at, size))[1])
    stops = iter([False, True])
    assert staging.stage(data, str(tmp_path / "scratch"), lambda: next(stops)) == data, "stopped by a signal"
    assert names(copy) == [part]
    assert staging.stage(data, str(tmp_path / "scratch")) == copy
    assert starts == [3000, 5000] and names(copy) == ["val.beton"]
    assert (copy / "val.beton").read_bytes() == CONTENT


def test_a_small_disk(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tmpfs(tmp_path / "scratch", "size=12k,mode=700"), pytest.MonkeyPatch.context() as patch:
        assert staging.stage(data, str(tmp_path / "scratch")) == data
        assert "note: data not staged: " in (out := capsys.readouterr().out)
        assert f"0.0 MB free, and 0.0 MB are needed; reading {data}" in out
        patch.setattr(staging, "_SPARE", -(1 << 20))  # others take the space meanwhile
        assert staging.stage(data, str(tmp_path / "scratch")) == data
        assert "No space left on device; reading" in capsys.readouterr().out
        assert not [path for path in (tmp_path / "scratch").rglob("*.beton*") if path.suffix != ".lock"]


def test_what_others_can_write_to_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (scratch := tmp_path / "scratch").mkdir(mode=0o700)
    copy = staging.stage(data, str(scratch))
    scratch.chmod(0o777)
    assert staging.stage(data, str(scratch)) == data
    assert f"note: data not staged: everyone can write to {scratch}; reading {data}" in capsys.readouterr().out
    scratch.chmod(0o700)
    (copy / "val.beton").chmod(0o666)
    staging.stage(data, str(scratch))
    assert not (copy / "val.beton").stat().st_mode & 0o022, "copied again"
    assert staging.stage(data, "$NO_SUCH_NAME/kd") == data
    assert "$NO_SUCH_NAME is not set on this node" in capsys.readouterr().out


def test_data_that_change_meanwhile(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change() -> bool:
        with (data / "val.beton").open("ab") as file:
            file.write(b"more")
        return False

    assert staging.stage(data, str(tmp_path / "scratch"), change) == data
    assert "val.beton has changed while it was copied" in capsys.readouterr().out

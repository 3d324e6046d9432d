"""Copies of datasets on a node's own disk, made once per node and kept for later jobs.

A copy has a folder named by the names, sizes and times of its files. A file gets its name there when it is complete,
and a job reads the copy when all files are there. So a process that was killed leaves nothing wrong behind, and the
next one continues its copy.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from harness.data import manifest
from harness.data.cifar_files import CIFAR100
from harness.errors import UserError, system_error
from harness.store import files, ownership
from harness.store.locks import Lock
from slurm.node_paths import on_this_node

_PIECE = 64 << 20  # bytes between two looks at `should_stop`
_SPARE = 64 << 20  # bytes to leave free
_POLL_S = 0.2


class NotStaged(Exception):
    """The reason why a dataset is not copied to a node."""


def stage(data: Path, folder: str, should_stop: Callable[[], bool] = lambda: False) -> Path:
    """Return a copy of a dataset, a folder or a file, in a node's folder; or the original, where a copy cannot be had.

    Of several processes on a node, one copies and the others wait. What is done, or why nothing is, is printed.
    """
    try:
        return _staged(data, on_this_node(folder), should_stop)
    except (NotStaged, UserError) as e:
        reason = str(e)
    except OSError as e:
        reason = system_error(e)
    print(f"note: data not staged: {reason}; reading {data}", flush=True)
    return data


def _staged(data: Path, folder: Path, should_stop: Callable[[], bool]) -> Path:
    sources = source_files(data)
    copy = Copy(folder / _name(data, sources), sources)
    with ownership.writable_by_owner_alone():
        folder.mkdir(parents=True, exist_ok=True)
        if others := ownership.writers(folder):
            raise NotStaged(f"{' and '.join(others)} can write to {folder}")
        ownership.check_writable([folder])
        lock = Lock(folder / f".{copy.folder.name}.lock")
        _acquire(lock, should_stop)
        try:
            began = time.monotonic()
            copied = copy.complete(should_stop)
            os.utime(copy.folder)  # the time of its last use, for whoever removes old copies
        finally:
            lock.release()
    how = f"{_size(copied)} in {time.monotonic() - began:.0f} s" if copied else "already there"
    print(f"data staged to {copy.folder} ({how})", flush=True)
    return copy.folder / data.name if data.is_file() else copy.folder


def source_files(data: Path) -> dict[str, Path]:
    """Return the files that jobs read of a dataset by their paths in its folder; of a prepared one, whose manifest
    states the sizes, no others.

    Raises:
        UserError: a prepared dataset is damaged.
    """
    if data.is_file():
        return {data.name: data}
    if (data / manifest.FILE).is_file():
        prepared = manifest.read_manifest(data, "")
        names = [manifest.FILE, *(name for part in prepared.parts.values() for name in part.sizes())]
    elif parts := CIFAR100.files_in(data):  # perhaps among all other data
        names = [path.name for part in parts for path in part]
    else:
        names = sorted(str(path.relative_to(data)) for path in data.rglob("*") if path.is_file())
    return {name: data / name for name in names}


def _name(data: Path, sources: Mapping[str, Path]) -> str:
    digest = sha256()
    for name, path in sources.items():
        digest.update(f"{name}\0{_facts(path.stat())}\0".encode(errors="surrogateescape"))
        if name == manifest.FILE:
            digest.update(files.read_bytes(path))
    return f"{data.name}-{digest.hexdigest()[:16]}"


def _facts(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _acquire(lock: Lock, should_stop: Callable[[], bool]) -> None:
    is_first = True
    while not lock.acquire():
        if is_first:
            print("waiting for a process of this node that copies the data", flush=True)
        is_first = False
        if should_stop():
            raise NotStaged("stopped by a signal")
        time.sleep(_POLL_S)


@dataclass(frozen=True)
class Copy:
    """A dataset's copy in a folder. One process at a time may complete it."""

    folder: Path
    sources: Mapping[str, Path]  # path in the folder -> the original

    def complete(self, should_stop: Callable[[], bool]) -> int:
        """Copy the files that are not there, and return their bytes.

        Raises:
            NotStaged: there is too little space, an original changes meanwhile, or ``should_stop`` returns True.
            OSError: a file cannot be read or written.
        """
        missing = {name: path for name, path in self.sources.items() if not self._has(name, path)}
        for leftover in self.folder.rglob(".*.part"):
            if leftover not in map(self._part, missing):
                leftover.unlink()
        sizes = {name: path.stat().st_size for name, path in missing.items()}
        self.folder.mkdir(exist_ok=True)
        here = sum(part.stat().st_size for part in map(self._part, missing) if part.exists())
        disk = os.statvfs(self.folder)
        free = disk.f_bavail * disk.f_frsize
        if missing and sum(sizes.values()) - here + _SPARE > free:
            raise NotStaged(f"{self.folder.parent} has {_size(free)} free, and {_size(sum(sizes.values()))} are needed")
        copied: list[Path] = []
        try:
            for name, path in missing.items():
                self._copy(path, self._part(name), should_stop)
                os.replace(self._part(name), self.folder / name)
                copied.append(self.folder / name)
        except OSError as e:
            if e.errno in files.FULL:  # others may need the space
                for path in (*copied, *map(self._part, missing)):
                    path.unlink(missing_ok=True)
            raise
        return sum(sizes.values())

    def _has(self, name: str, source: Path) -> bool:
        """Return whether a file is there as it was copied, and no link to elsewhere."""
        with suppress(FileNotFoundError):
            status = (self.folder / name).lstat()
            return _facts(status) == _facts(source.stat()) and ownership.is_private(status)
        return False

    def _part(self, name: str) -> Path:
        """Return the name of a file while it is copied. What a crash of the machine may have torn has another."""
        path = self.folder / name
        return path.with_name(f".{path.name}.{_boot()}.part")

    def _copy(self, source: Path, part: Path, should_stop: Callable[[], bool]) -> None:
        part.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as original, files.errors_named(part), part.open("ab") as file:
            before = os.fstat(original.fileno())
            at = os.fstat(file.fileno()).st_size
            for piece in _pieces(original.fileno(), at, before.st_size):
                file.write(piece)
                file.flush()
                if should_stop():
                    raise NotStaged("stopped by a signal")
            os.fsync(file.fileno())
        if _facts(before) != _facts(source.stat()) or part.stat().st_size != before.st_size:
            part.unlink()
            raise NotStaged(f"{source} has changed while it was copied")
        os.utime(part, ns=(before.st_atime_ns, before.st_mtime_ns))


def _pieces(file: int, at: int, size: int) -> Iterator[bytes]:
    while piece := os.pread(file, max(0, min(_PIECE, size - at)), at):
        at += len(piece)
        yield piece


def _boot() -> str:
    """Return a name of the time since this machine was started."""
    return files.read_bytes(Path("/proc/sys/kernel/random/boot_id")).decode().strip()[:8]


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 10**8 else f"{count / 1e6:,.1f} MB"

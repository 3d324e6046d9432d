"""Files that are there whole or not at all."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class DiskFull(Exception):
    """No room left where a file should be written."""


@contextlib.contextmanager
def full_disk_as_error(path: Path) -> Iterator[None]:
    """Writing ``path``.

    Raises:
        DiskFull: naming it, in place of an error that says only that there is no room.
    """
    try:
        yield
    except Exception as e:
        if _is_disk_full(e):
            raise DiskFull(f"{path.parent}: no space left on the disk (writing {path.name})") from e
        raise


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """A name beside ``path``, ``.NAME.*.tmp``, that is gone afterwards unless the process is killed.

    Raises:
        DiskFull: there was no room.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with full_disk_as_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _is_disk_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # safetensors raises a class of its own: "I/O error: No space left on device (os error 28)"
    return any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT))


def sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace(path: Path, write: Callable[[Path], object], durable: bool = True) -> None:
    """Puts what ``write(temporary_path)`` wrote in place of ``path``; a reader sees the old file or the new one.

    Raises:
        DiskFull: there was no room; ``path`` is as it was.
    """
    with temporary_beside(path) as temporary:
        write(temporary)
        if durable:
            move(temporary, path)
        else:
            os.replace(temporary, path)


def move(source: Path, path: Path) -> None:
    """Puts a whole file in place of ``path``, on the same file system; once done it outlives a crash of the machine."""
    sync(source)
    os.replace(source, path)
    sync(path.parent)


def write_once(path: Path, write: Callable[[Path], object]) -> bool:
    """As ``replace``, but the first writer wins; False when the file was there already."""
    with temporary_beside(path) as temporary:
        write(temporary)
        sync(temporary)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        sync(path.parent)
        return True


def replace_text(path: Path, text: str) -> None:
    """As ``replace``, for what can be made anew if the machine dies."""
    replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), durable=False)


def replace_json(path: Path, value: Any, durable: bool = True) -> None:
    replace(path, lambda p: p.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n"), durable)


def sha256(path: Path) -> str:
    """Return the sha256 of a file's content, 64 hex digits."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read_json(path: Path) -> Any | None:
    """The value, or None when the file is missing or not JSON (written by a newer version, say)."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def tail(log: Path, lines: int = 30) -> str:
    """The last lines of a log file."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError as e:
        return f"(no log: {e})"


class Lock:
    """An advisory lock on a file, held by this process until released or dead: the kernel lets go for it."""

    def __init__(self, path: Path):
        self.path = path
        self._fd: int | None = None

    def acquire(self) -> bool:
        """True when this process now holds it. Waits no longer than others need to ask ``is_locked``."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        for _ in range(10):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.01)
            else:
                self._fd = fd
                return True
        os.close(fd)
        return False

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock."""
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that ask do not take each other for the holder
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)

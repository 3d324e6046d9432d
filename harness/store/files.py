"""Files that are written whole or not at all."""

import contextlib
import errno
import hashlib
import json
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class DiskFull(Exception):
    """The disk that a file should be written to is full."""


@contextlib.contextmanager
def full_disk_as_error(path: Path) -> Iterator[None]:
    """Raise DiskFull, naming ``path``, in place of an error that says only that the disk is full."""
    try:
        yield
    except Exception as e:
        if _is_disk_full(e):
            raise DiskFull(f"{path.parent}: no space left on the disk (writing {path.name})") from e
        raise


@contextlib.contextmanager
def temporary_path(path: Path) -> Iterator[Path]:
    """Yield a name in the folder of ``path``, ``.NAME.*.tmp``; the file is removed at the end, except after a kill.

    Raises:
        DiskFull: the disk is full.
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
    """Wait until a file or a folder's listing is on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace(path: Path, write: Callable[[Path], object], durable: bool = True) -> None:
    """Replace ``path`` by the file that ``write(temporary_path)`` writes; a reader sees the old file or the new one.

    Raises:
        DiskFull: the disk is full; ``path`` is unchanged.
    """
    with temporary_path(path) as temporary:
        write(temporary)
        _follow_umask(temporary)
        if durable:
            move(temporary, path)
        else:
            os.replace(temporary, path)


def _follow_umask(path: Path) -> None:
    """Give a file that a library has made private, as safetensors does, the permissions of any new file here."""
    status = path.lstat()
    if stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o600:
        with temporary_path(path) as new, new.open("xb") as f:
            path.chmod(stat.S_IMODE(os.fstat(f.fileno()).st_mode))


def move(source: Path, path: Path) -> None:
    """Rename a file to ``path``, on the same file system; afterwards it survives a crash of the machine."""
    sync(source)
    os.replace(source, path)
    sync(path.parent)


def write_once(path: Path, write: Callable[[Path], object]) -> bool:
    """Write ``path`` as ``replace`` does, unless it exists; return whether this call wrote it."""
    with temporary_path(path) as temporary:
        write(temporary)
        _follow_umask(temporary)
        sync(temporary)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        sync(path.parent)
        return True


def replace_text(path: Path, text: str) -> None:
    """Replace a text file that can be made again if the machine crashes."""
    data = text.encode(errors="backslashreplace")  # a name that is not UTF-8 is shown, as on a terminal
    replace(path, lambda temporary: temporary.write_bytes(data), durable=False)


def replace_json(path: Path, value: Any, durable: bool = True) -> None:
    """Replace ``path`` by a value as JSON."""
    replace(path, lambda p: p.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n"), durable)


def sha256(path: Path) -> str:
    """Return the sha256 of a file's content, 64 hex digits."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read_json(path: Path) -> Any | None:
    """Return the value, or None when the file is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None


def tail(log: Path, lines: int = 30) -> str:
    """Return the last lines of a log file, or why there are none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError as e:
        return f"(no log: {e})"

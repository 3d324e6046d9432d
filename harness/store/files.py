"""Files that are written whole or not at all."""

import contextlib
import errno
import fnmatch
import hashlib
import json
import os
import re
import stat
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT)  # of a disk without space for anybody, or for this user
_SMALL = 20_000  # bytes: more than a failure, a queue or a line of a log takes
TAIL_BYTES = 1 << 20  # of a log, which may have any size


class DiskFull(Exception):
    """The disk that a file should be written to is full."""


@contextlib.contextmanager
def full_disk_as_error(path: Path) -> Iterator[None]:
    """Raise DiskFull, naming ``path``, in place of an error that says only that the disk is full.

    Raises:
        OSError: any other error of the file system; it has a filename.
    """
    try:
        with errors_named(path):
            yield
    except OSError as e:
        if e.errno in FULL:
            traceback.clear_frames(e.__traceback__)  # a file that they hold open keeps the space that a failure needs
            raise DiskFull(f"{path.parent}: no space left on the disk (writing {path.name})") from e
        raise


@contextlib.contextmanager
def errors_named(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let errors of the system that name no file, or its temporary one, be OSErrors that name ``path``.

    Those are errors of reading, writing and locking open files, and those of libraries with classes of their own.
    """
    try:
        yield
    except Exception as e:
        number = error_number(e)
        if number is None or getattr(e, "filename", None) not in (None, str(temporary), temporary):
            raise
        if not isinstance(e, OSError):
            raise OSError(number, os.strerror(number), str(path)) from e
        e.errno, e.strerror, e.filename = number, os.strerror(number), str(path)
        raise


def error_number(error: Exception) -> int | None:
    """Return the system's number of an error; None where it comes from elsewhere."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    # safetensors: "I/O error: No space left on device (os error 28)"
    number = re.search(r"\(os error ([0-9]{1,4})\)", str(error))
    return int(number[1]) if number else None


@contextlib.contextmanager
def temporary_path(path: Path) -> Iterator[Path]:
    """Yield a name in the folder of ``path``, ``.NAME.*.tmp``; the file is removed at the end, except after a kill.

    Raises:
        DiskFull: the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with full_disk_as_error(path), errors_named(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
    finally:
        with contextlib.suppress(OSError):  # what went wrong before is to be said; what was written is in place
            temporary.unlink()


def names_full_disk(text: str) -> bool:
    """Return whether a text, as the end of a log, says that a disk is full."""
    return "no space left on the disk" in text or any(os.strerror(number) in text for number in FULL)


def is_disk_full(folder: Path) -> bool:
    """Return whether not even a small file can be written to a folder, because its disk is full."""
    try:
        with temporary_path(folder / "space") as temporary:
            temporary.write_bytes(bytes(_SMALL))
    except DiskFull:
        return True
    except OSError:
        return False
    return False


def sync(path: Path) -> None:
    """Wait until a file or a folder's listing is on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        with errors_named(path):
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
    with errors_named(path), path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read_bytes(path: Path) -> bytes:
    """Return a file's content; nothing of a pipe in its place. An OSError names the file, whatever fails."""
    with errors_named(path), open(path, "rb", opener=_without_waiting) as f:
        return f.read() or b""


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def read_json(path: Path) -> Any | None:
    """Return the value, or None when the file is missing or not JSON.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return json.loads(read_bytes(path))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None


def is_there(path: Path) -> bool:
    """Return whether there is a file, folder or link of this name, even a link to nothing.

    Unlike ``os.path.lexists`` it does not take what cannot be looked at for missing.

    Raises:
        OSError: that is unknown.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def entries(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the entries of a folder whose names match, by name; none where there is no such folder.

    Unlike ``Path.glob`` it does not take a folder that cannot be read for an empty one.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with errors_named(folder):
            names = fnmatch.filter(os.listdir(folder), pattern)
    except FileNotFoundError:
        return []
    return [folder / name for name in sorted(names)]


def tail(log: Path, lines: int = 30, begin: int = 0, end: int | None = None) -> str:
    """Return the last lines of a log file, of its last megabyte at most, or why there are none.

    ``begin`` and ``end`` are the bytes between which to look.
    """
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            end = size if end is None else min(end, size)
            first = file.seek(max(0, begin, end - TAIL_BYTES))
            return "\n".join(file.read(max(0, end - first)).decode(errors="replace").splitlines()[-lines:])
    except OSError as e:
        return f"(no log: {e})"

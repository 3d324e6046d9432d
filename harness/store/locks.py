"""Locks on files, by which processes keep out of each other's way."""

import errno
import fcntl
import os
import time
import weakref
from contextlib import suppress
from pathlib import Path

from harness.errors import UserError
from harness.store import files

_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Lock:
    """An advisory lock on a file. The kernel releases it if its process dies, even if a fork of it lives on.

    ``with lock as acquired:`` releases it at the end of the block. With ``wait``, ``acquire`` waits until the lock is
    free; without, only as long as a call of ``is_locked`` may take.
    """

    def __init__(self, path: Path, wait: bool = False):
        self.path = path
        self._mode = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
        self._fd: int | None = None

    def acquire(self) -> bool:
        """Return whether this process now holds the lock."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = _open(self.path)
        for _ in range(10):
            if _flock(fd, self._mode, self.path):
                self._fd = fd
                _held.add(self)
                return True
            time.sleep(0.01)
        os.close(fd)
        return False

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            _held.discard(self)

    def write(self, text: str) -> None:
        """Replace the content of the lock's file, for people to read, as far as this user may."""
        assert self._fd is not None, "held"
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, text.encode(), 0)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


_held: weakref.WeakSet[Lock] = weakref.WeakSet()  # by this process


def _release_in_fork() -> None:
    """Close a forked child's copies, which would keep the locks after the parent's end. The parent still holds them."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_release_in_fork)


def _open(path: Path) -> int:
    """Open a lock's file, which another user may have made: to lock it, reading is enough on most file systems."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)  # a link may lead to any file of this user
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # of a pipe in its place, opening would wait
    except FileNotFoundError:
        return False
    free = _flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, path)  # shared, so that two calls do not see each other
    os.close(fd)
    return not free


def _flock(fd: int, mode: int, path: Path) -> bool:
    """Return whether a lock was free and is now held by this process; ``fd`` is closed on errors.

    Raises:
        UserError: the file system has no locks.
        OSError: any other error; it names the file.
    """
    try:
        with files.errors_named(path):
            fcntl.flock(fd, mode)
    except BlockingIOError:
        return False
    except OSError as e:
        os.close(fd)
        if e.errno in _WITHOUT_LOCKS:
            raise UserError(
                f"{path}: cannot be locked: {e.strerror}; the file system needs locks (flock): mount Lustre with the "
                "option `flock`, NFS as version 4 or with its lock service running, or use another folder as --results"
            ) from None
        raise
    return True

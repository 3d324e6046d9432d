"""Locks on files, by which processes keep out of each other's way."""

import fcntl
import os
import time
import weakref
from contextlib import suppress
from pathlib import Path


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
        try:
            for _ in range(10):
                try:
                    fcntl.flock(fd, self._mode)
                except BlockingIOError:
                    time.sleep(0.01)
                else:
                    self._fd = fd
                    _held.add(self)
                    return True
        finally:
            if self._fd != fd:
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
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two calls do not see each other
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)

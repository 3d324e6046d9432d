"""Owners and permissions: who else can write to a store, and which files are surely this user's own."""

import grp
import os
import pwd
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.errors import UserError, one_line
from harness.store import files

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def user_name(uid: int) -> str:
    """Return the name of an account, or its number where it has none."""
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def other_owner(path: Path) -> str | None:
    """Return the name of the user whom a file or link belongs to, or None where that is this user."""
    uid = path.lstat().st_uid
    return None if uid == os.geteuid() else user_name(uid)


def is_private(status: os.stat_result) -> bool:
    """Return whether a file or folder belongs to this user or to root, and nobody else may write to it."""
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & OTHERS_WRITE


def is_private_tree(folder: Path) -> bool:
    """Return whether a folder and all that it holds are private, as far as its file system can say."""
    private = all(is_private(path.lstat()) for path in (folder, *folder.rglob("*")))
    return private or not _keeps_permissions(folder.parent)


def check_writable(folders: Iterable[Path]) -> None:
    """Check that this user may write to folders, those that are there.

    Raises:
        UserError: naming the first to which not, and whose it is.
    """
    for folder in folders:
        if folder.exists() and not os.access(folder, os.W_OK):
            cause = f"it belongs to user {user_name(folder.stat().st_uid)}; `umask 002` shares a store"
            if os.statvfs(folder).f_flag & os.ST_RDONLY:
                cause = "its file system is read-only"
            raise UserError(f"{folder}: you may not write to it: {cause}")


def read_private(path: Path) -> bytes:
    """Return the content of a file that nobody else can have written.

    Raises:
        OSError: it cannot be read.
        UserError: another user owns it, or may write to it.
    """
    with path.open("rb") as f, files.errors_named(path):
        status = os.fstat(f.fileno())  # of what is read, whatever stands under the name by then
        if not is_private(status) and _keeps_permissions(path.parent):
            owner = "you" if status.st_uid == os.geteuid() else f"user {user_name(status.st_uid)}"
            raise UserError(
                f"{path}: belongs to {owner}, with mode {stat.S_IMODE(status.st_mode):o}: jobs start only by a file "
                "that you alone can write to; run the sweep again"
            )
        return f.read()


def _keeps_permissions(folder: Path) -> bool:
    """Return whether a new file in a folder is private when that is asked for: some file systems have no owners."""
    probe = folder / f".owner.{uuid.uuid4().hex[:8]}.tmp"
    fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        return is_private(os.fstat(fd))
    finally:
        os.close(fd)
        probe.unlink()


def without_links(path: str, flags: int) -> int:
    """Open a file as an opener of ``open``, but not through a link, by which others could have any file written to.

    It does not wait for the other end of a pipe that stands in the file's place.

    Raises:
        OSError: it is a link, or cannot be opened.
    """
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def check_inside(root: Path, path: Path) -> None:
    """Check that a file of a store is the store's own: no link, nor in a folder that a link takes out of the store.

    Raises:
        UserError: it is not; a store that others wrote could have any file of this user copied so.
    """
    if path.is_symlink() and not path.is_dir():
        raise UserError(f"{path}: is a link; only files that lie in the store itself are taken")
    if not (real := Path(os.path.realpath(path))).is_relative_to(root):
        raise UserError(f"{path}: leads out of the store, to {real}; only files that lie in the store itself are taken")


def current_umask() -> int:
    """Return the permissions that new files of this process do not get."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


@contextmanager
def writable_by_owner_alone() -> Iterator[None]:
    """Keep files and folders that the block makes from being written to by others."""
    before = os.umask(current_umask() | OTHERS_WRITE)
    try:
        yield
    finally:
        os.umask(before)


def writers(root: Path) -> list[str]:
    """Return who else than this user and root can change files of a store, each in words. It need not exist yet."""
    folders = [root, *(path for path in _entries(root) if not path.is_symlink() and path.is_dir())]
    statuses = [path.stat() for path in folders if path.exists()]
    # Whoever may write to a folder above, unless it is sticky, can put another store in the place of this one.
    above = [path.stat() for path in root.parents if path.exists()]
    statuses += [status for status in above if not status.st_mode & stat.S_ISVTX]
    names = {f"user {user_name(s.st_uid)}": None for s in statuses if s.st_uid not in _trusted()}
    if any(s.st_mode & stat.S_IWOTH for s in statuses):
        return ["everyone", *names]
    groups = {s.st_gid for s in statuses if s.st_mode & stat.S_IWGRP and not _is_own_group(s.st_gid)}
    return [*(f"group {_group_name(gid)}" for gid in sorted(groups)), *names]


def writers_note(root: Path) -> str:
    """Return a line that says who else can write to a store and what they can do to this user; empty where nobody can.

    Raises:
        OSError: the store cannot be read.
    """
    if not (others := writers(root)):
        return ""
    return one_line(
        f"note: {' and '.join(others)} can write to {root}: they can change or delete results, checkpoints and notes "
        "there, but your jobs run no code that they could write to"
    )


def _entries(root: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(root.iterdir())
    return []


def _trusted() -> tuple[int, int]:
    return 0, os.geteuid()


def _is_own_group(gid: int) -> bool:
    """Return whether a group holds this user alone: many systems give each user a group of the same name."""
    with suppress(KeyError):
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid())
        return gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
    return False


def _group_name(gid: int) -> str:
    with suppress(KeyError):
        return grp.getgrgid(gid).gr_name
    return str(gid)

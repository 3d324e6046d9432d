"""Faults of file systems: the n-th operation on a path below a folder fails with an errno."""

import builtins
import errno
import fcntl
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq

# What the file systems of a workstation and of a cluster answer.
ERRNOS = (
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOENT,
    errno.ENOLCK,
)  # fmt: skip
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT)
_OF_PATHS = ("lstat", "stat", "scandir", "listdir", "readlink")
_OF_CHANGES = ("mkdir", "rename", "replace", "link", "symlink", "unlink", "remove", "rmdir", "utime")


@dataclass
class Faults:
    """The operations on a folder's files so far, and the one of them that fails."""

    folder: str
    at: int | None = None  # the operation that fails; None: none does
    number: int = errno.EIO
    lasting: bool = False  # the same operation on the same path fails from then on
    operations: list[str] = field(default_factory=list)
    failed: tuple[str, str] | None = None  # name and path
    is_on: bool = False

    @classmethod
    def can(cls, operation: str, number: int) -> bool:
        """Return whether an operation of ``operations`` may fail with an errno on a real file system."""
        name, path = operation.split(" ", 1)
        if number == errno.EROFS:
            return name in ("create", *_OF_CHANGES)
        if number in _OF_WRITING:
            return name in ("write", "close", "create", "fsync", *_OF_CHANGES)
        if number == errno.ENOLCK:
            return name == "flock"
        if number == errno.EMFILE:
            return name in ("open", "create", "scandir", "listdir")
        if number == errno.ENOENT:  # another process has removed it
            lists = name in ("scandir", "listdir") and "/runs/" in path
            return lists or name in ("open", "readlink", "lstat", "stat", "rename", "unlink", "utime")
        if number == errno.EACCES:
            return name not in ("read", "write", "close", "fsync", "flock", "fstat")
        return True

    def meet(self, name: str, path: str, where: str | None) -> None:
        """Count an operation and fail if it is the one; ``where`` is the error's filename.

        Raises:
            OSError: it is.
        """
        if not self.is_on or not (path == self.folder or path.startswith(self.folder + os.sep)):
            return
        if not (self.lasting and self.failed == (name, path)):
            self.operations.append(operation := f"{name} {os.path.relpath(path, self.folder)}")
            if len(self.operations) - 1 != self.at or not self.can(operation, self.number):
                return
        self.failed = (name, path)
        raise OSError(self.number, os.strerror(self.number), where) if where else self._nameless()

    def _nameless(self) -> OSError:
        return OSError(self.number, os.strerror(self.number))


def _path_of(path: Any, dir_fd: int | None = None) -> str | None:
    with suppress(OSError):
        if isinstance(path, int):
            return _readlink(f"/proc/self/fd/{path}").removesuffix(" (deleted)")
        text = os.fsdecode(path)
        if dir_fd is not None:
            text = os.path.join(_readlink(f"/proc/self/fd/{dir_fd}"), text)
        return os.path.abspath(text)
    return None


_readlink = os.readlink


class _File:
    """An open file whose reads, writes and closing are operations."""

    def __init__(self, file: Any, path: str, faults: Faults):
        self.__dict__.update(_file=file, _path=path, _faults=faults)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._file, name)
        if name in ("read", "readinto", "readline", "readlines"):
            return self._before("read", value)
        return self._before("write", value) if name in ("write", "writelines", "truncate") else value

    def _before(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **options: Any) -> Any:
            try:
                self._faults.meet(name, self._path, None)
            except OSError:
                if name == "write" and args and isinstance(args[0], str | bytes):
                    call(args[0][: len(args[0]) // 2])  # a disk that is full takes a part
                raise
            return call(*args, **options)

        return called

    def close(self) -> None:
        is_open, writes = not self._file.closed, self._file.writable() if not self._file.closed else False
        self._file.close()
        if is_open and writes:  # where quotas and network file systems report
            self._faults.meet("close", self._path, None)

    def __enter__(self) -> "_File":
        self._file.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)


@contextmanager
def faults(folder: Path, at: int | None = None, number: int = errno.EIO, lasting: bool = False) -> Iterator[Faults]:
    """Count the operations on a folder's files in the block; that of index ``at`` fails with errno ``number``."""
    counted = Faults(str(folder.resolve()), at, number, lasting)
    with _patched(counted):
        counted.is_on = True
        try:
            yield counted
        finally:
            counted.is_on = False


@contextmanager
def _patched(faults: Faults) -> Iterator[None]:
    def of_path(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **options: Any) -> Any:
            path = args[1] if name == "symlink" else args[0]
            if (absolute := _path_of(path, options.get("dir_fd"))) is not None:
                faults.meet(name, absolute, None if isinstance(path, int) else os.fsdecode(path))
            return call(*args, **options)

        return called

    def os_open(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if (absolute := _path_of(path, options.get("dir_fd"))) is not None:
            creates = bool(flags & os.O_CREAT) and not real_exists(absolute)
            faults.meet("create" if creates else "open", absolute, os.fsdecode(path))
        return real_os_open(path, flags, *args, **options)

    def io_open(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        absolute = None if isinstance(file, int) else _path_of(file)
        if absolute is None or not faults.is_on or not absolute.startswith(faults.folder + os.sep):
            return real_io_open(file, mode, *args, **options)
        creates = not mode.startswith("r") and not real_exists(absolute)
        faults.meet("create" if creates else "open", absolute, os.fsdecode(file))
        return _File(real_io_open(file, mode, *args, **options), absolute, faults)

    def of_fd(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(fd: Any, *args: Any) -> Any:
            if faults.is_on and (path := _path_of(fd if isinstance(fd, int) else fd.fileno())) is not None:
                faults.meet(name, path, None)
            return call(fd, *args)

        return called

    def of_arrow(name: str, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Fail as pyarrow does: its errors have an errno and no filename."""

        def called(self: Any, *args: Any, **options: Any) -> Any:
            path = args[0] if name in ("open", "create") else self.__dict__.get("_of_faults")
            absolute = _path_of(path) if isinstance(path, str | os.PathLike) else None
            if absolute is not None:
                self.__dict__["_of_faults"] = absolute
                try:
                    faults.meet(name, absolute, None)
                except OSError as e:
                    self.is_open = False  # or it would be closed again when it is collected, with a traceback
                    text = f"Failed to open local file '{absolute}'" if name in ("open", "create") else what
                    raise OSError(e.errno, f"{text}. Detail: [errno {e.errno}] {e.strerror}") from None
            return call(self, *args, **options)

        return called

    def real_exists(path: str) -> bool:
        try:
            real_stat(path)
        except OSError:
            return False
        return True

    real_os_open, real_io_open, real_stat = os.open, io.open, os.stat
    patches = [mock.patch.object(os, name, of_path(name, getattr(os, name))) for name in (*_OF_PATHS, *_OF_CHANGES)]
    patches += [mock.patch.object(os, "open", os_open), mock.patch.object(os, "fsync", of_fd("fsync", os.fsync))]
    patches += [mock.patch.object(io, "open", io_open), mock.patch.object(builtins, "open", io_open)]
    patches += [mock.patch.object(fcntl, "flock", of_fd("flock", fcntl.flock))]
    reading, writing = "Error reading bytes from file", "Error writing bytes to file"
    for kind, method, name, what in (
        (pq.ParquetFile, "__init__", "open", ""),
        (pq.ParquetFile, "read", "read", reading),
        (pq.ParquetFile, "read_row_groups", "read", reading),
        (pq.ParquetWriter, "__init__", "create", ""),
        (pq.ParquetWriter, "write_table", "write", writing),
        (pq.ParquetWriter, "close", "close", writing),
    ):
        patches.append(mock.patch.object(kind, method, of_arrow(name, what, getattr(kind, method))))
    patches += _safetensors(faults)
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()


def _safetensors(faults: Faults) -> list[Any]:
    """Return patches of the names by which the harness writes and reads safetensors, whose errors are their own."""
    import sys

    def writes(call: Callable[..., Any]) -> Callable[..., Any]:
        from safetensors import SafetensorError

        def called(tensors: Any, path: Any, *args: Any, **options: Any) -> Any:
            try:
                faults.meet("write", os.path.abspath(path), None)
            except OSError as e:
                text = f"Error while serializing: I/O error: {e.strerror} (os error {e.errno})"
                raise SafetensorError(text) from None
            return call(tensors, path, *args, **options)

        return called

    def reads(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(path: Any, *args: Any, **options: Any) -> Any:
            try:
                faults.meet("open", os.path.abspath(path), None)
            except FileNotFoundError:
                raise FileNotFoundError(f"No such file or directory: {path}") from None
            except OSError as e:
                raise OSError(f"{e.strerror} (os error {e.errno})") from None
            return call(path, *args, **options)

        return called

    patches = []
    for module in [m for name, m in sys.modules.items() if name.startswith("harness.training.")]:
        for name, made in (("save_file", writes), ("safe_open", reads), ("load_file", reads)):
            if name in vars(module):
                patches.append(mock.patch.object(module, name, made(getattr(module, name))))
    return patches

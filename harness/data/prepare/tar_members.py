"""Members of an uncompressed tar, found from its headers alone. Nothing is unpacked and no link is followed."""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from harness.errors import UserError

MAX_HEADER = 1 << 20  # bytes: a header that wants more to be read is damaged or hostile
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_LFS_POINTER = b"version https://git-lfs"


class Member(NamedTuple):
    name: str
    start: int  # position of its first byte in the file
    size: int  # bytes
    is_file: bool  # False: a link, a device or a file with holes


def tar_members(path: Path, within: Member | None = None) -> Iterator[Member]:
    """Yield the members of a tar, except its folders, or those of the tar that is a member ``within`` it.

    Raises:
        UserError: it is no uncompressed tar, or is damaged, or ends within a member.
    """
    try:
        with path.open("rb") as file:
            start, size = (within.start, within.size) if within else (0, path.stat().st_size)
            yield from _members(_Headers(file, start, start + size))
    except _Damaged as e:
        raise UserError(f"{path}: {within.name + ': ' if within else ''}{e}") from None
    except OSError as e:
        raise UserError(f"{path}: {e.strerror or e}") from None


class _Damaged(Exception):
    """A tar that cannot be read. Its text says why."""


class _Headers:
    """The part of a file that is a tar, as tarfile reads it: no more than the headers."""

    def __init__(self, file: BinaryIO, start: int, end: int):
        self.start, self.end = start, end
        self._file = file
        self.tell, self.seek = file.tell, file.seek
        file.seek(start)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise _Damaged(f"damaged: a header of {size:,} bytes")
        return self._file.read(max(0, min(size, self.end - self.tell())))


def _members(headers: _Headers) -> Iterator[Member]:
    _check_start(headers)
    for info in _infos(headers):
        if not info.isdir():
            yield Member(info.name, info.offset_data, info.size, info.isreg() and info.sparse is None)


def _infos(headers: _Headers) -> Iterator[tarfile.TarInfo]:
    position = headers.start
    try:
        tar: Any = tarfile.open(fileobj=cast(BinaryIO, headers), mode="r:")  # Any: typeshed lacks ``members``
        while (info := tar.next()) is not None:
            tar.members.clear()  # a million of them would fill the memory
            is_cut = info.sparse is None and info.offset_data + info.size > headers.end  # else the size has the holes
            if tar.offset <= position or is_cut:
                raise _Damaged(f"cut or damaged: it ends within {info.name}")
            position = tar.offset
            yield info
        headers.seek(tar.offset)
    except (_Damaged, OSError, GeneratorExit):
        raise
    except Exception as e:  # damaged headers make tarfile raise anything
        raise _Damaged(f"cut or damaged: {e}") from None
    if headers.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes what is no header for the end
        raise _Damaged(f"cut or damaged: no header of a member at byte {position:,}")


def _check_start(headers: _Headers) -> None:
    content = headers.read(tarfile.BLOCKSIZE)
    headers.seek(headers.start)
    if not content:
        raise _Damaged("empty file")
    if content.startswith(_LFS_POINTER):
        raise _Damaged("a Git LFS pointer instead of the file: git lfs pull")
    for magic, kind in _COMPRESSED.items():
        if content.startswith(magic):
            raise _Damaged(f"compressed with {kind}: no image in it can be read by itself; make it a plain .tar")

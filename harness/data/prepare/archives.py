"""Archives that hold many images: where the bytes of each are, and how they are read."""

import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from harness.errors import shorten

MAX_SIZE = 1 << 30  # bytes of one image: no file of a photograph is larger, whatever a header says


class Archive(Protocol):
    """A file that holds images. It is sent to other processes, which open the file for themselves."""

    @property
    def path(self) -> Path: ...

    def read(self, position: int, size: int) -> bytes:
        """Return the bytes of one image.

        Raises:
            OSError: they cannot be read.
        """


class TarFile(NamedTuple):
    """An uncompressed tar. The position of an image is that of its first byte in the file."""

    path: Path

    def read(self, position: int, size: int) -> bytes:
        if size > MAX_SIZE:
            raise OSError(f"{size:,} bytes: too large for an image")
        with self.path.open("rb", buffering=0) as file:
            content = os.pread(file.fileno(), size, position)
        if len(content) < size:
            raise OSError(f"cut: {self.path.name} ends within it")
        return content


class RowGroup(NamedTuple):
    """Rows of a Parquet shard that are stored together. The position of an image is its row in the group."""

    path: Path
    number: int  # in the shard
    column: str  # of the bytes: `image.bytes`, or `image` where they are not part of a structure

    def read(self, position: int, size: int) -> bytes:
        content = _rows(self)[position].as_py()
        if isinstance(content, dict):
            (content,) = content.values()
        if content is None:
            raise OSError("no bytes")
        return bytes(content)


_held: dict[RowGroup, Any] = {}  # what this process read last: the images of a chunk share a few groups


def _rows(group: RowGroup) -> Any:
    if group not in _held:
        _held.clear()  # before the next is read, so that there is never more than one in memory
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(group.path) as file:
                _held[group] = file.read_row_group(group.number, [group.column], use_threads=False).column(0)
        except Exception as e:  # a damaged shard makes Arrow raise anything
            raise OSError(f"damaged rows: {shorten(' '.join(str(e).split()))}") from None
    return _held[group]

"""The Parquet files of a generation: each holds rows of one dataset.

The dataset is the name of the file's folder (``dataset=cifar100``), as Hive partitions tables: readers of Parquet
return it as a column and skip the folders that a query does not need.
"""

import hashlib
import os
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import Unreadable, UserError
from harness.phrases import plural
from harness.store import files
from harness.store.checksums import WrongChecksum
from harness.store.generations import INDEX, Generation, Part, PartDigests
from harness.store.schema import SCHEMA, add_younger_columns, check, has_columns, upgrade

_GROUP_ROWS = 2000  # a row group: the least that is read to get one row, and the most in memory while writing
_FOOTER_END = 8  # bytes: the footer's size and Parquet's mark
_FILE_SCHEMA = SCHEMA.remove(SCHEMA.get_field_index("dataset"))


class PartWriter:
    """A part that is being written to the folder of a generation."""

    def __init__(self, folder: Path, dataset: str):
        self.name = f"dataset={quote(dataset, safe='')}/part-{uuid.uuid4().hex[:16]}.parquet"
        self.run_ids = list[str]()
        self._path = folder / self.name
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(self._path, _FILE_SCHEMA, compression="zstd", write_page_checksum=True)
        self._buffer: list[pa.Table] = []
        self._written_rows = 0

    def add(self, rows: pa.Table) -> None:
        """Append rows of this part's dataset, with the columns of ``SCHEMA``."""
        self._buffer.append(rows.select(_FILE_SCHEMA.names))
        self.run_ids += rows.column("run_id").to_pylist()
        if len(self.run_ids) - self._written_rows >= _GROUP_ROWS:
            self._write_group()

    def close(self) -> Part:
        """Make the file durable and return what the index has to say of it."""
        if self._buffer:
            self._write_group()
        self._writer.close()
        files.sync(self._path)
        with pa.OSFile(str(self._path)) as source:
            return Part(self.run_ids, _digests(source))

    def _write_group(self) -> None:
        self._writer.write_table(pa.concat_tables(self._buffer).combine_chunks())
        self._buffer, self._written_rows = [], len(self.run_ids)


def read_part(generation: Generation, name: str, run_ids: Set[str], columns: Sequence[str]) -> pa.Table:
    """Return the rows of the given runs in a part. Only row groups that hold any of them are read.

    Raises:
        FileNotFoundError: the generation was removed.
        UserError: the file is damaged.
    """
    in_part = generation.parts[name]
    with _open_part(generation, name) as file:
        whole_groups, selections, start = list[int](), list[pa.Table](), 0
        for group in range(file.metadata.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            rows = [i - start for i in range(start, end) if in_part[i] in run_ids]
            if len(rows) == end - start:
                whole_groups.append(group)
            elif rows:  # one group at a time: 100,000 runs with their curves do not fit in memory
                table = _read_groups(generation, name, file, [group], columns)
                selections.append(table.take(pa.array(rows, pa.int64())))
            start = end
        return pa.concat_tables([_read_groups(generation, name, file, whole_groups, columns), *selections])


def stream_part(generation: Generation, name: str) -> Iterator[pa.Table]:
    """Yield all rows of a part, a row group at a time. Raises as ``read_part`` does."""
    with _open_part(generation, name) as file:
        for group in range(file.metadata.num_row_groups):
            yield _read_groups(generation, name, file, [group], SCHEMA.names)


def check_part(generation: Generation, name: str) -> None:
    """Check every byte of a part by its digests; without them, by reading its rows. Raises as ``read_part`` does."""
    if not generation.digests:
        for _ in stream_part(generation, name):
            pass
        return
    with _open_part(generation, name) as file:
        file.check(range(file.metadata.num_row_groups), _FILE_SCHEMA.names)


@contextmanager
def _open_part(generation: Generation, name: str) -> Iterator["_PartFile"]:
    """Open a part; any damage found until the end of the context is raised as a UserError."""
    path, count = generation.folder / name, len(generation.parts[name])
    again = f"move it out of the store: the next sweeps train its {plural(count, 'run')} again"
    with damage_as_error(path, "not readable", f"restore it from a copy, or {again}"):
        with pa.OSFile(str(path)) as source:
            file = _PartFile(source, generation.digests[name] if generation.digests else None)
            if file.metadata.num_rows != count:
                raise ValueError(f"{file.metadata.num_rows} rows where {INDEX} says {count}")
            yield file


class _PartFile:
    """An open part, whose bytes are checked as they are read."""

    def __init__(self, source: pa.NativeFile, digests: PartDigests | None):
        if digests and _digest(_footer(source)) != digests.footer:
            raise WrongChecksum
        self._source, self._digests = source, digests
        self._file = pq.ParquetFile(source, page_checksum_verification=True)
        self.metadata = self._file.metadata

    def read(self, groups: Sequence[int], columns: Sequence[str] | None) -> pa.Table:
        self.check(groups, columns or _FILE_SCHEMA.names)
        # On two cores a thread per column takes longer than none: each allocates memory of its own.
        return self._file.read_row_groups(groups, columns=columns, use_threads=False)

    def check(self, groups: Iterable[int], columns: Collection[str]) -> None:
        """Check these columns of these row groups, where there are digests."""
        if self._digests is None:
            return
        for group in groups:
            for chunk, stated in zip(_chunks_of(self.metadata, group), self._digests.chunks[group], strict=True):
                column = chunk.path_in_schema.partition(".")[0]
                if column in columns and _digest(_chunk(self._source, chunk)) != stated:
                    raise WrongChecksum


@contextmanager
def damage_as_error(path: Path, finding: str, advice: str) -> Iterator[None]:
    """Raise a UserError in place of any error that says that a Parquet file is damaged.

    Raises:
        FileNotFoundError: there is no such file.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except UnicodeEncodeError:  # of the path
        raise Unreadable(f"{path}: its name is not UTF-8, which readers of Parquet need") from None
    except (pa.ArrowException, OSError, ValueError, KeyError) as e:
        if isinstance(e, OSError) and e.errno:  # it cannot be opened, which says nothing about its content
            raise Unreadable(f"{path}: {os.strerror(e.errno)}") from None
        reason = str(e.args[0] if isinstance(e, KeyError) and e.args else e) or type(e).__name__
        raise UserError(f"{path}: {finding} ({reason.splitlines()[0][:120]}); {advice}") from None


def _read_groups(
    generation: Generation, name: str, file: _PartFile, groups: list[int], columns: Sequence[str]
) -> pa.Table:
    current = has_columns(generation.schema_version)
    in_file = [c for c in _FILE_SCHEMA.names if c in columns] if current else None
    table = file.read(groups, in_file)
    table = table.append_column("dataset", pa.array([dataset_of(name)] * len(table), pa.string()))
    table = (add_younger_columns(table, columns) if current else upgrade(table)).select(columns)
    if table.schema.types != [SCHEMA.field(name).type for name in columns]:
        raise ValueError("a column is of another type")
    check(table)
    return table


def _digests(source: pa.NativeFile) -> PartDigests:
    metadata = pq.ParquetFile(source).metadata
    groups = range(metadata.num_row_groups)
    chunks = tuple(tuple(_digest(_chunk(source, chunk)) for chunk in _chunks_of(metadata, group)) for group in groups)
    return PartDigests(_digest(_footer(source)), chunks)


def _chunks_of(metadata: pq.FileMetaData, group: int) -> list[pq.ColumnChunkMetaData]:
    row_group = metadata.row_group(group)
    return [row_group.column(i) for i in range(row_group.num_columns)]


def _chunk(source: pa.NativeFile, chunk: pq.ColumnChunkMetaData) -> bytes:
    """Return the bytes of a column of a row group."""
    start = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
    content: bytes = source.read_at(chunk.total_compressed_size, start)
    return content


def _footer(source: pa.NativeFile) -> bytes:
    end: bytes = source.read_at(_FOOTER_END, max(0, source.size() - _FOOTER_END))
    size = min(source.size(), int.from_bytes(end[:4], "little") + _FOOTER_END)
    content: bytes = source.read_at(size, source.size() - size)
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def dataset_of(name: str) -> str:
    """Return a part's dataset from the part's name."""
    return unquote(name.partition("/")[0].removeprefix("dataset="))


def stream_rows(generation: Generation, name: str, run_ids: Set[str], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the rows of the given runs in a part, by row group. Raises as ``read_part`` does."""
    in_part = generation.parts[name]
    with _open_part(generation, name) as file:
        start = 0
        for group in range(file.metadata.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            rows = [i - start for i in range(start, end) if in_part[i] in run_ids]
            if rows:
                table = _read_groups(generation, name, file, [group], columns)
                table = table if len(rows) == len(table) else table.take(pa.array(rows, pa.int64()))
                yield table
                del table  # before the next one is read
            start = end

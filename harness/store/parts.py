"""The Parquet files of a generation: each holds rows of one dataset.

The dataset is the name of the file's folder (``dataset=cifar100``), as Hive partitions tables: readers of Parquet
return it as a column and skip the folders that a query does not need.
"""

import os
import uuid
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import UserError
from harness.phrases import plural
from harness.store import files
from harness.store.generations import INDEX, Generation
from harness.store.schema import SCHEMA, SCHEMA_VERSION, check, upgrade

_GROUP_ROWS = 2000  # a row group: the least that is read to get one row, and the most in memory while writing
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

    def close(self) -> list[str]:
        """Make the file durable and return the run ids in the order of its rows."""
        if self._buffer:
            self._write_group()
        self._writer.close()
        files.sync(self._path)
        return self.run_ids

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
        for group in range(file.num_row_groups):
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
        for group in range(file.num_row_groups):
            yield _read_groups(generation, name, file, [group], SCHEMA.names)


@contextmanager
def _open_part(generation: Generation, name: str) -> Iterator[pq.ParquetFile]:
    """Open a part; any damage found until the end of the context is raised as a UserError."""
    path, count = generation.folder / name, len(generation.parts[name])
    again = f"move it out of the store: the next sweeps train its {plural(count, 'run')} again"
    with damage_as_error(path, "not readable", f"restore it from a copy, or {again}"):
        file = pq.ParquetFile(path, page_checksum_verification=True)
        if file.metadata.num_rows != count:
            raise ValueError(f"{file.metadata.num_rows} rows where {INDEX} says {count}")
        yield file


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
    except (pa.ArrowException, OSError, ValueError, KeyError) as e:
        if isinstance(e, OSError) and e.errno:  # it cannot be opened, which says nothing about its content
            raise UserError(f"{path}: {os.strerror(e.errno)}") from None
        reason = str(e.args[0] if isinstance(e, KeyError) and e.args else e) or type(e).__name__
        raise UserError(f"{path}: {finding} ({reason.splitlines()[0][:120]}); {advice}") from None


def _read_groups(
    generation: Generation, name: str, file: pq.ParquetFile, groups: list[int], columns: Sequence[str]
) -> pa.Table:
    current = generation.schema_version == SCHEMA_VERSION
    in_file = [c for c in _FILE_SCHEMA.names if c in columns] if current else None
    # On two cores a thread per column takes longer than none: each allocates memory of its own.
    table = file.read_row_groups(groups, columns=in_file, use_threads=False)
    table = table.append_column("dataset", pa.array([dataset_of(name)] * len(table), pa.string()))
    table = (table if current else upgrade(table)).select(columns)
    if table.schema.types != [SCHEMA.field(name).type for name in columns]:
        raise ValueError("a column is of another type")
    check(table)
    return table


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

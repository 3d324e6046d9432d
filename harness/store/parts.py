"""The files of a generation: Parquet, rows of one dataset each.

The dataset is the name of the file's folder (``dataset=cifar100``), Hive's way: readers of Parquet give it back as a
column, and pass over the folders that they are not asked for.
"""

import uuid
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import UserError
from harness.store import files
from harness.store.generations import INDEX, Generation
from harness.store.schema import SCHEMA, SCHEMA_VERSION, as_current

_GROUP_ROWS = 2000  # what is read to get at one row, and held in memory at once
_IN_FILE = SCHEMA.remove(SCHEMA.get_field_index("dataset"))


class Part:
    """A file in the making."""

    def __init__(self, folder: Path, dataset: str):
        """``folder``: of the generation."""
        self.name = f"dataset={quote(dataset, safe='')}/part-{uuid.uuid4().hex[:16]}.parquet"
        self.run_ids = list[str]()
        self._path = folder / self.name
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(self._path, _IN_FILE, compression="zstd", write_page_checksum=True)
        self._waiting: list[pa.Table] = []
        self._written = 0

    def add(self, rows: pa.Table) -> None:
        self._waiting.append(rows.select(_IN_FILE.names))
        self.run_ids += rows.column("run_id").to_pylist()
        if len(self.run_ids) - self._written >= _GROUP_ROWS:
            self._write()

    def close(self) -> list[str]:
        """Makes it durable; the runs it holds, in the order of rows."""
        if self._waiting:
            self._write()
        self._writer.close()
        files.sync(self._path)
        return self.run_ids

    def _write(self) -> None:
        self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks())
        self._waiting, self._written = [], len(self.run_ids)


def read_part(generation: Generation, name: str, wanted: Set[str], columns: Sequence[str]) -> pa.Table:
    """Rows of the wanted runs that a part has; only row groups with any of them are read.

    Raises:
        FileNotFoundError: the generation was removed.
        UserError: the file is damaged.
    """
    run_ids = generation.parts[name]
    with _telling_damage(generation, name) as file:
        whole, some, start = list[int](), list[pa.Table](), 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            rows = [i - start for i in range(start, end) if run_ids[i] in wanted]
            if len(rows) == end - start:
                whole.append(group)
            elif rows:  # one at a time: of 100,000 runs with curves no machine holds all for the sake of some
                some.append(_read_groups(generation, name, file, [group], columns).take(pa.array(rows, pa.int64())))
            start = end
        return pa.concat_tables([_read_groups(generation, name, file, whole, columns), *some])


def stream_part(generation: Generation, name: str) -> Iterator[pa.Table]:
    """All of a part, a row group at a time. Raises as ``read`` does."""
    with _telling_damage(generation, name) as file:
        for group in range(file.num_row_groups):
            yield _read_groups(generation, name, file, [group], SCHEMA.names)


@contextmanager
def _telling_damage(generation: Generation, name: str) -> Iterator[pq.ParquetFile]:
    path, count = generation.folder / name, len(generation.parts[name])
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        if file.metadata.num_rows != count:
            raise ValueError(f"{file.metadata.num_rows} rows where {INDEX} says {count}")
        yield file
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as e:
        raise UserError(
            f"{path}: not readable ({str(e).splitlines()[0][:120]}); put it back from a copy, "
            f"or delete it and run the sweeps again to train its {count} runs anew"
        ) from None


def _read_groups(
    generation: Generation, name: str, file: pq.ParquetFile, groups: list[int], columns: Sequence[str]
) -> pa.Table:
    current = generation.schema_version == SCHEMA_VERSION
    wanted = [c for c in _IN_FILE.names if c in columns] if current else None
    # A thread per column takes longer on two cores than none: each has memory of its own to fetch.
    table = file.read_row_groups(groups, columns=wanted, use_threads=False)
    table = table.append_column("dataset", pa.array([dataset_of(name)] * len(table), pa.string()))
    return (table if current else as_current(table)).select(columns)


def dataset_of(name: str) -> str:
    """The dataset of a part, by the part's name."""
    return unquote(name.partition("/")[0].removeprefix("dataset="))

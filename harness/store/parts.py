"""The files of a generation: Parquet, rows of one dataset each.

The dataset is the name of the file's folder (``dataset=cifar100``), Hive's way: readers of Parquet give it back as a
column, and pass over the folders that they are not asked for.
"""

import uuid
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import UserError
from harness.store import files
from harness.store.generations import INDEX, Generation
from harness.store.schema import SCHEMA, SCHEMA_VERSION, as_current

_GROUP_ROWS = 1000  # what is read to get at one row, and held in memory at once
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


def read(
    generation: Generation, part: str, wanted: Set[str] | None = None, columns: Sequence[str] = SCHEMA.names
) -> Iterator[pa.Table]:
    """Rows of a file of compacted records, by row group: those of the wanted runs, or all.

    Raises:
        FileNotFoundError: the generation was removed.
        UserError: the file is damaged.
    """
    path, run_ids = generation.folder / part, generation.parts[part]
    dataset = dataset_of(part)
    current = generation.schema_version == SCHEMA_VERSION
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        start = 0
        for group in range(file.num_row_groups):
            expected = run_ids[start : start + file.metadata.row_group(group).num_rows]
            start += len(expected)
            rows = [i for i, run_id in enumerate(expected) if wanted is None or run_id in wanted]
            if not rows:
                continue
            table = file.read_row_group(group, columns=list({*columns, "run_id"}) if current else None)
            if tuple(table.column("run_id").to_pylist()) != expected:
                raise ValueError(f"other runs than {INDEX} says")
            table = table.append_column("dataset", pa.array([dataset] * len(table), pa.string()))
            table = table if current else as_current(table)
            yield table.select(columns) if len(rows) == len(table) else table.select(columns).take(rows)
        if start != len(run_ids):
            raise ValueError(f"fewer runs than {INDEX} says")
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as e:
        raise UserError(
            f"{path}: not readable ({str(e).splitlines()[0][:120]}); put it back from a copy, "
            f"or delete it and run the sweeps again to train its {len(run_ids)} runs anew"
        ) from None


def dataset_of(name: str) -> str:
    """The dataset of a part, by the part's name."""
    return unquote(name.partition("/")[0].removeprefix("dataset="))

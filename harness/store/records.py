"""Records: one row per finished run, written once by the job itself as a Parquet file, later compacted with others."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.errors import UserError
from harness.store import files, parts
from harness.store.generations import View
from harness.store.schema import SCHEMA, SCHEMA_VERSION, as_current
from harness.store.store import Store


def write_record(store: Store, row: dict[str, Any]) -> bool:
    """Writes a run's record as a file of its own; False when it has one already.

    Raises:
        DiskFull: no room; nothing is left behind.
    """
    row = {"schema_version": SCHEMA_VERSION, **row}
    missing = set(SCHEMA.names) ^ set(row)
    assert not missing, f"record and schema differ in {missing}"
    if row["run_id"] in store.done_ids():  # compacted, perhaps, and its file gone
        return False
    table = pa.Table.from_pylist([row], schema=SCHEMA)
    return files.write_once(store.record(row["run_id"]), lambda path: pq.write_table(table, path))


def read_records(store: Store, run_ids: Iterable[str], columns: Sequence[str] = SCHEMA.names) -> pa.Table:
    """Rows of the runs that have a record, ordered by run_id.

    Raises:
        UserError: a record or a file of compacted ones that is not readable Parquet.
    """
    wanted = frozenset(run_ids)
    view = store.view()
    while True:
        try:
            return _read_view(store, view, wanted, columns)
        except FileNotFoundError as e:  # compacted or deleted since we looked
            before, view = view, store.view()
            if view == before:
                raise UserError(f"{e.filename or e}: cannot be opened, though it is there") from None


def read_loose(store: Store, run_id: str) -> pa.Table:
    """The one row of a record that is a file of its own.

    Raises:
        FileNotFoundError: it is not, or not any more.
        UserError: it is damaged.
    """
    path = store.record(run_id)
    try:
        table = as_current(pq.ParquetFile(path).read(use_threads=False))  # a row is too little to share out
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as e:
        raise UserError(
            f"{path}: not a readable record ({str(e).splitlines()[0][:120]}); "
            "delete it and run the sweep again to train this run anew"
        ) from None
    if table.column("run_id").to_pylist() != [run_id]:
        raise UserError(f"{path}: holds another run's record; delete it and run the sweep again")
    return table


def _read_view(store: Store, view: View, wanted: frozenset[str], columns: Sequence[str]) -> pa.Table:
    names = list(dict.fromkeys(["run_id", *columns]))
    tables = [SCHEMA.empty_table().select(names)]
    if view.generation:
        tables += [parts.read_part(view.generation, name, wanted, names) for name in view.generation.parts]
    tables += [read_loose(store, run_id).select(names) for run_id in wanted & view.loose]
    rows = pa.concat_tables(tables).combine_chunks()  # so that the same rows are the same bytes when written
    return rows.take(pc.sort_indices(rows.column("run_id"))).select(columns)

"""Records: one row per finished run, written once by its own job as a Parquet file, later compacted with others."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.errors import UserError
from harness.store import checksums, files, json_files, parts
from harness.store.generations import RecordIndex
from harness.store.schema import SCHEMA, SCHEMA_VERSION, check, upgrade
from harness.store.store import Store


def write_record(store: Store, row: dict[str, Any]) -> bool:
    """Write a run's record as a file of its own; return False when the run has a record already.

    Raises:
        DiskFull: the disk is full; nothing is left behind.
    """
    row = {"schema_version": SCHEMA_VERSION, **row}
    difference = set(SCHEMA.names) ^ set(row)
    assert not difference, f"record and schema differ in {difference}"
    if row["run_id"] in store.done_ids():  # its file may be gone, as it is compacted
        return False
    return write_row(store, row["run_id"], pa.Table.from_pylist([row], schema=SCHEMA))


def write_row(store: Store, run_id: str, row: pa.Table) -> bool:
    """Write a run's one row as a file of its own; return False when there is such a file already.

    Raises:
        DiskFull: the disk is full; nothing is left behind.
    """
    content = file_content(row)
    return files.write_once(store.record(run_id), lambda path: path.write_bytes(content))


def file_content(row: pa.Table) -> bytes:
    """Return one row as a Parquet file with a checksum of all its bytes."""
    content = pa.BufferOutputStream()
    with pq.ParquetWriter(content, row.schema) as writer:
        writer.write_table(row)
        writer.add_key_value_metadata({checksums.KEY: checksums.ZEROS})
    return checksums.seal_bytes(content.getvalue().to_pybytes())


def read_records(store: Store, run_ids: Iterable[str], columns: Sequence[str] = SCHEMA.names) -> pa.Table:
    """Return the rows of those runs that have a record, ordered by run_id.

    Raises:
        UserError: a record or a file of compacted records is not readable Parquet.
    """
    requested = frozenset(run_ids)
    index = store.record_index()
    while True:
        try:
            return _read_indexed(store, index, requested, columns)
        except FileNotFoundError as e:  # compacted or deleted since the index was read
            before, index = index, store.record_index()
            if index == before:
                raise UserError(f"{e.filename or e}: cannot be opened, though it exists") from None


class LooseRecord(NamedTuple):
    """The one row of a record that is a file of its own, and whether the file carries a checksum."""

    row: pa.Table
    sealed: bool


def read_loose(store: Store, run_id: str) -> LooseRecord:
    """Read a record that is a file of its own.

    Raises:
        FileNotFoundError: the run has no such file, or no longer.
        UserError: the file is damaged.
    """
    path = store.record(run_id)
    advice = "restore it from a copy, or move it out of the store: the next sweep trains its run again"
    with parts.damage_as_error(path, "not a readable record", advice):
        content = files.read_bytes(path)
        sealed = checksums.check_bytes(content)
        file = pq.ParquetFile(pa.BufferReader(content))
        table = upgrade(file.read(use_threads=False)).replace_schema_metadata()  # one row is not worth several threads
        if table.column("run_id").to_pylist() != [run_id]:
            raise ValueError("run_id: of another run")
        check(table)
        if not sealed and table.column("schema_version")[0].as_py() >= checksums.SINCE:
            raise ValueError("it carries no checksum")
    return LooseRecord(table, sealed)


def note_unsealed(store: Store, count: int) -> None:
    """Say on stderr, once, if any of the records that are being read carry no checksum."""
    if count:
        json_files.print_note(
            f"{store.root}: has records without a checksum, written by an earlier harness: a changed bit may go "
            f"unnoticed in them; python -m harness.compact --results {store.root} adds checksums"
        )


def _read_indexed(store: Store, index: RecordIndex, run_ids: frozenset[str], columns: Sequence[str]) -> pa.Table:
    names = list(dict.fromkeys(["run_id", *columns]))
    tables = [SCHEMA.empty_table().select(names)]
    if index.generation:
        if index.generation.digests is None:
            note_unsealed(store, len(run_ids & index.generation.run_ids))
        tables += [parts.read_part(index.generation, name, run_ids, names) for name in index.generation.parts]
    unsealed = 0
    for run_id in run_ids & index.loose:
        record = read_loose(store, run_id)
        unsealed += not record.sealed
        tables.append(record.row.select(names))  # its other columns, as the curves, are not kept
    note_unsealed(store, unsealed)
    rows = pa.concat_tables(tables).combine_chunks()  # so that equal rows are equal bytes when written
    return rows.take(pc.sort_indices(rows.column("run_id"))).select(columns)

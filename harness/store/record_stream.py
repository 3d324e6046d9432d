"""Records read whole, a few at a time: all the curves of 100,000 runs do not fit in memory."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from harness.store import parts, records
from harness.store.schema import SCHEMA
from harness.store.store import Store

ROWS = 2000  # about as many are in memory at a time


def stream_records(store: Store, run_ids: Iterable[str], columns: Sequence[str] = SCHEMA.names) -> Iterator[pa.Table]:
    """Yield the rows of those runs that have a record in the order of the store's files, a row group at a time.

    Raises:
        UserError: as ``records.read_records``.
    """
    requested, index = frozenset(run_ids), store.record_index()
    names = list(dict.fromkeys(["run_id", *columns]))
    streamed = set[str]()
    if index.generation and index.generation.digests is None:
        records.note_unsealed(store, len(requested & index.generation.run_ids))
    for generation, name in [(index.generation, name) for name in index.generation.parts] if index.generation else ():
        with contextlib.suppress(FileNotFoundError):  # compacted again since the index was read: see below
            for table in parts.stream_rows(generation, name, requested, names):
                streamed.update(table.column("run_id").to_pylist())
                yield table.select(columns)
                del table  # before the next one is read
    rest = sorted(requested & index.run_ids - streamed)
    for start in range(0, len(rest), ROWS):
        yield records.read_records(store, rest[start : start + ROWS], columns)


def stream_in_order(store: Store, run_ids: Sequence[str], folder: Path) -> Iterator[pa.Table]:
    """Yield the row of each run that has a record, in the given order, at most ``ROWS`` at a time.

    A run that is given twice has two rows. Where all rows do not fit into one table, a nameless file in ``folder``
    holds them for a while: the store's files have them in another order, and are read once.

    Raises:
        UserError: as ``records.read_records``.
        OSError: the folder's disk is full.
    """
    places: dict[str, list[int]] = {}
    for i, run_id in enumerate(run_ids):
        places.setdefault(run_id, []).append(i)
    if len(run_ids) <= ROWS:
        yield _in_order(records.read_records(store, places), places)
        return
    batches: list[list[int]] = [[] for _ in range(0, len(run_ids), ROWS)]  # by table: its batches in the file
    written = 0
    with tempfile.TemporaryFile(dir=folder) as file:
        with pa.ipc.new_file(file, SCHEMA, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
            for table in stream_records(store, places):
                at = [(i // ROWS, row) for row, k in enumerate(table.column("run_id").to_pylist()) for i in places[k]]
                target, source = np.array(at, np.int64).reshape(-1, 2).T
                for number in np.unique(target).tolist():
                    # A run may be twice in one table.
                    taken = table.take(pa.array(np.unique(source[target == number])))
                    writer.write_batch(taken.combine_chunks().to_batches()[0])
                    batches[number].append(written)
                    written += 1
                del table, taken  # before the next ones are read
        reader = pa.ipc.open_file(file)
        for number, of_table in enumerate(batches):
            own: dict[str, list[int]] = {}
            for i, run_id in enumerate(run_ids[number * ROWS : (number + 1) * ROWS]):
                own.setdefault(run_id, []).append(i)
            yield _in_order(pa.Table.from_batches(map(reader.get_batch, of_table), SCHEMA), own)


def _in_order(table: pa.Table, places: dict[str, list[int]]) -> pa.Table:
    """Return the rows by their places. Each run of the table has at least one."""
    at = [(i, row) for row, run_id in enumerate(table.column("run_id").to_pylist()) for i in places[run_id]]
    table = table.combine_chunks()  # so that equal rows are equal bytes when written
    return table.take(pa.array([row for _, row in sorted(at)], pa.int64()))

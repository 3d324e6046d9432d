"""Records: one Parquet file per finished run, one row each, written once by the job itself."""

import contextlib
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import UserError
from harness.store import files
from harness.store.store import Store

SCHEMA_VERSION = 5
COST_PARTS = ("data", "teacher", "student", "method", "evaluation", "first_stage")

_METRICS = [pa.field(f"{when}_{m}", pa.float64()) for when in ("last", "best") for m in ("top1", "top5", "loss")]
_COSTS = [pa.field(f"cost_{part}_s", pa.float64()) for part in COST_PARTS]

SCHEMA = pa.schema(
    [
        pa.field("schema_version", pa.int32()),
        pa.field("run_id", pa.string()),
        pa.field("status", pa.string()),  # done or diverged
        # what was trained
        pa.field("dataset", pa.string()),
        pa.field("dataset_version", pa.string()),
        pa.field("train_size", pa.int64()),
        pa.field("evaluated_on", pa.string()),  # test, or validation: training images that were held out
        pa.field("evaluated_size", pa.int64()),
        pa.field("student", pa.string()),
        pa.field("student_parameters", pa.int64()),
        pa.field("evaluated_parameters", pa.int64()),  # more than the student's where the method is part of the model
        pa.field("teacher", pa.string()),
        pa.field("teacher_run", pa.string()),
        pa.field("teacher_sha256", pa.string()),  # of the weights file, as given or as written by teacher_run
        pa.field("teacher_top1", pa.float64()),  # in %, measured when loaded; of given weights, on the test set
        pa.field("method", pa.string()),
        pa.field("method_parameters", pa.int64()),  # trained with the student
        pa.field("seed", pa.int64()),
        pa.field("epochs", pa.int64()),
        pa.field("precision", pa.string()),
        pa.field("science", pa.string()),  # every resolved setting, as canonical JSON
        # results, in % and nats per image, over all images of evaluated_on
        *_METRICS,
        pa.field("best_epoch", pa.int64()),
        pa.field("warnings", pa.list_(pa.string())),  # of the method, by the last epoch's means
        pa.field(
            "curves", pa.list_(pa.struct([("epoch", pa.int32()), ("name", pa.string()), ("value", pa.float64())]))
        ),
        # cost, in seconds of this run's share of its pack; first_stage: all of a stage before the main one
        *_COSTS,
        pa.field("cost_total_s", pa.float64()),
        pa.field("pack_size", pa.int64()),
        pa.field("peak_memory_bytes", pa.int64()),  # of the process, or of the device when there is one
        # provenance
        pa.field("weights_sha256", pa.string()),  # of the trained student's safetensors file
        pa.field("git_commit", pa.string()),
        pa.field("git_dirty", pa.bool_()),
        pa.field("versions", pa.string()),  # JSON: package -> version
        pa.field("hardware", pa.string()),
        pa.field("threads", pa.int64()),
        pa.field("processes", pa.int64()),
        pa.field("host", pa.string()),
        pa.field("attempts", pa.int64()),
        pa.field("started_at", pa.timestamp("us", tz="UTC")),
        pa.field("finished_at", pa.timestamp("us", tz="UTC")),
    ]
)

_CACHED = SCHEMA.append(pa.field("written_ns", pa.int64()))


def write(store: Store, row: dict[str, Any]) -> bool:
    """Writes a run's record; False when it has one already.

    Raises:
        DiskFull: no room; nothing is left behind.
    """
    row = {"schema_version": SCHEMA_VERSION, **row}
    missing = set(SCHEMA.names) ^ set(row)
    assert not missing, f"record and schema differ in {missing}"
    table = pa.Table.from_pylist([row], schema=SCHEMA)
    return files.write_once(store.record(row["run_id"]), lambda path: pq.write_table(table, path))


def read(store: Store, run_ids: Iterable[str], columns: list[str] | None = None) -> pa.Table:
    """Rows of the runs that have a record, ordered by run_id.

    Many small files are slow to read, so rows once read are kept in a cache file, each with its record's time of
    writing: a record that was deleted and trained anew is read again. The cache may be deleted at any time.

    Raises:
        UserError: a record that is not readable Parquet.
    """
    wanted = sorted(set(run_ids) & store.done_ids())
    cached = _read_cache(store)
    written = {run_id: store.record(run_id).stat().st_mtime_ns for run_id in wanted}
    rows = zip(cached.column("run_id").to_pylist(), cached.column("written_ns").to_pylist(), strict=True)
    still_true = [written.get(run_id, ns) == ns for run_id, ns in rows]
    cached = cached.filter(pa.array(still_true, pa.bool_()))
    known = set(cached.column("run_id").to_pylist())
    if new := [k for k in wanted if k not in known]:
        rows = pa.concat_tables([_read_one(store, k) for k in new]).combine_chunks()
        rows = rows.append_column("written_ns", pa.array([written[k] for k in new])).cast(_CACHED)
        cached = pa.concat_tables([cached, rows])
        with contextlib.suppress(OSError, files.DiskFull):  # a store one may only read has its tables all the same
            files.replace(store.record_cache, lambda path: pq.write_table(cached, path), durable=False)
    at = {run_id: i for i, run_id in enumerate(cached.column("run_id").to_pylist())}
    return cached.select(columns or SCHEMA.names).take(pa.array([at[k] for k in wanted], pa.int64()))


def read_fresh(store: Store, run_ids: Iterable[str]) -> pa.Table:
    """As ``read``, from the records themselves."""
    wanted = sorted(set(run_ids) & store.done_ids())
    return pa.concat_tables([SCHEMA.empty_table(), *(_read_one(store, run_id) for run_id in wanted)])


def _read_one(store: Store, run_id: str) -> pa.Table:
    path = store.record(run_id)
    try:
        table = pq.ParquetFile(path).read(use_threads=False)  # a row is too little to share out
        if set(table.schema.names) != set(SCHEMA.names):
            table = _of_older_version(table)
        table = table.select(SCHEMA.names)
        if not table.schema.equals(SCHEMA):
            table = table.cast(SCHEMA)
    except (pa.ArrowException, OSError, ValueError, KeyError) as e:
        raise UserError(
            f"{path}: not a readable record ({str(e).splitlines()[0][:120]}); "
            "delete it and run the sweep again to train this run anew"
        ) from None
    if table.column("run_id").to_pylist() != [run_id]:
        raise UserError(f"{path}: holds another run's record; delete it and run the sweep again")
    return table


def _of_older_version(table: pa.Table) -> pa.Table:
    """With the columns that have come since: after version 1 the first stage's cost, after 2 what a run was evaluated
    on (the test set, whose size had another name), after 3 the parameters of what was evaluated,
    after 4 the method's warnings."""
    if "test_size" in table.schema.names:
        table = table.rename_columns({"test_size": "evaluated_size"})
    since = {"cost_first_stage_s": pa.array([0.0]), "evaluated_on": pa.array(["test"])}
    since["warnings"] = pa.array([[]], pa.list_(pa.string()))
    since["evaluated_parameters"] = table.column("student_parameters")
    for name, values in since.items():
        if name not in table.schema.names:
            table = table.append_column(name, values)
    return table


def _read_cache(store: Store) -> pa.Table:
    try:
        return pq.ParquetFile(store.record_cache).read().cast(_CACHED)
    except (pa.ArrowException, OSError, ValueError):  # missing, or of another schema version: made anew
        return _CACHED.empty_table()

"""The columns of a record, and the upgrade of rows that an older version wrote."""

import json
from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness.errors import shorten
from harness.spec import identity
from harness.spec.tasks import METRICS

SCHEMA_VERSION = 10
_COLUMNS_VERSION = 6  # from here on, rows lack nothing but ``YOUNGER_COLUMNS``
COST_PARTS = ("waiting", "data", "teacher", "student", "method", "evaluation", "first_stage")

# What a classifier's logits tell beside its metrics: agreement with its teacher in %, KL(teacher || student) in nats at
# temperatures 1 and 4, calibration error in %; "train": of training images as they are evaluated
FIDELITY = ("agreement", "kl_t1", "kl_t4", "ece")
FIDELITY_COLUMNS = (*(f"last_{m}" for m in FIDELITY), "train_top1", *(f"train_{m}" for m in FIDELITY))
YOUNGER_COLUMNS = (*FIDELITY_COLUMNS, "retries", "cost_waiting_s")

_METRICS = [pa.field(f"{when}_{m}", pa.float64()) for when in ("last", "best") for m in METRICS]
_COSTS = [pa.field(f"cost_{part}_s", pa.float64()) for part in COST_PARTS]

SCHEMA = pa.schema(
    [
        pa.field("schema_version", pa.int32()),
        pa.field("run_id", pa.string()),
        pa.field("status", pa.string()),  # done or diverged
        # the run's settings
        pa.field("dataset", pa.string()),
        pa.field("dataset_version", pa.string()),
        pa.field("train_size", pa.int64()),
        pa.field("evaluated_on", pa.string()),  # test, or validation: held-out training images
        pa.field("evaluated_size", pa.int64()),
        pa.field("student", pa.string()),
        pa.field("student_parameters", pa.int64()),
        pa.field("evaluated_parameters", pa.int64()),  # more than the student's where the method is part of the model
        pa.field("teacher", pa.string()),
        pa.field("teacher_run", pa.string()),
        pa.field("teacher_sha256", pa.string()),  # of the weights file, as given or as written by teacher_run
        # in % and nats, measured when the job loads the teacher; for given weights, on the test set
        *(pa.field(f"teacher_{m}", pa.float64()) for m in METRICS),
        pa.field("method", pa.string()),
        pa.field("method_parameters", pa.int64()),  # trained with the student
        pa.field("seed", pa.int64()),
        pa.field("epochs", pa.int64()),
        pa.field("precision", pa.string()),
        pa.field("science", pa.string()),  # every resolved setting, as canonical JSON
        # results, in % and nats per image, over all images of evaluated_on; metrics of the other task are null
        *_METRICS,
        pa.field("best_epoch", pa.int64()),
        *(pa.field(name, pa.float64()) for name in FIDELITY_COLUMNS),  # after the last epoch, see docs/fidelity.md
        pa.field("warnings", pa.list_(pa.string())),  # of the method, from the last epoch's means
        pa.field(
            "curves", pa.list_(pa.struct([("epoch", pa.int32()), ("name", pa.string()), ("value", pa.float64())]))
        ),
        # cost, in seconds: this run's share of its pack; waiting: for images that were not yet decoded; first_stage:
        # everything in the stage before the main one
        *_COSTS,
        pa.field("cost_total_s", pa.float64()),
        pa.field("pack_size", pa.int64()),
        pa.field("peak_memory_bytes", pa.int64()),  # of the GPU where there is one, else of the process
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
        pa.field("retries", pa.list_(pa.string())),  # what attempts asked for that earlier ones had not, and why
        pa.field("started_at", pa.timestamp("us", tz="UTC")),
        pa.field("finished_at", pa.timestamp("us", tz="UTC")),
    ]
)


# What tells of a run's machine, time and code: two records of one run may differ in it and have the same result.
PROVENANCE = frozenset(
    {
        *(f"cost_{part}_s" for part in (*COST_PARTS, "total")), "schema_version", "pack_size", "peak_memory_bytes",
        "git_commit", "git_dirty", "versions", "hardware", "threads", "processes", "host", "attempts",
        "retries", "started_at", "finished_at",
    }
)  # fmt: skip
# What two records of one run have in common. The fidelity follows from the weights, and older records have none.
RESULTS = tuple(name for name in SCHEMA.names if name not in PROVENANCE and name not in FIDELITY_COLUMNS)

# Columns that may be null: of a run without a teacher or that diverged, of the other task, outside of a checkout.
_OPTIONAL = {
    "teacher", "teacher_run", "teacher_sha256", "best_epoch", "git_commit", "git_dirty",
    *(f"{what}_{m}" for what in ("last", "best", "teacher") for m in METRICS), *FIDELITY_COLUMNS,
    "cost_waiting_s",  # before version 10, when it was in the data's
}  # fmt: skip
_CLOSED = {"status": ("done", "diverged"), "evaluated_on": ("test", "validation", "train")}
_COUNTS = ("pack_size", "threads", "processes", "attempts")
_LATEST = 10**17  # microseconds since 1970, of a date that every reader can hold


def check(table: pa.Table) -> None:
    """Check the values of rows with any columns of ``SCHEMA``, ``run_id`` among them.

    Raises:
        ValueError: a value is one that no run writes; the message names the column.
        pa.ArrowInvalid: text that is not UTF-8.
    """
    table.validate(full=True)
    columns = {name: table.column(name) for name in table.schema.names}
    for name, column in columns.items():
        if column.null_count and name not in _OPTIONAL:
            raise ValueError(f"{name}: no value")
        if name.startswith("cost_") and not _within(column, -1e12, 1e12):
            raise ValueError(f"{name}: expected a number of seconds")
        if name in _CLOSED and (unknown := set(pc.unique(column).to_pylist()).difference(_CLOSED[name])):
            raise ValueError(f"{name}: expected {' or '.join(_CLOSED[name])}, found {shorten(unknown.pop())}")
        if name in _COUNTS and not _within(column, 1, 10**9):
            raise ValueError(f"{name}: expected at least 1")
        if name.endswith("_at") and not _within(column.cast(pa.int64()), 0, _LATEST):
            raise ValueError(f"{name}: not a date")
        if name == "versions" and not all(map(_are_versions, pc.unique(column).to_pylist())):
            raise ValueError("versions: expected JSON, a text for each package")
    for name in columns.keys() & {"warnings", "retries"}:
        if pc.list_flatten(columns[name]).null_count:
            raise ValueError(f"{name}: an entry without a text")
    if "science" in columns:
        for run_id, text in zip(columns["run_id"].to_pylist(), columns["science"].to_pylist(), strict=True):
            if identity.of_text(text) != run_id:
                raise ValueError("science: of another run")
    if "curves" in columns:
        points = columns["curves"].combine_chunks().flatten()
        if any(points.field(name).null_count for name in ("epoch", "name", "value")):
            raise ValueError("curves: a point without a value")


def _within(column: pa.ChunkedArray, least: float, most: float) -> bool:
    inside = pc.and_(pc.greater_equal(column, least), pc.less_equal(column, most))  # false of NaN
    return bool(pc.all(inside, min_count=0).as_py())


def _are_versions(text: str) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and all(isinstance(version, str) for version in value.values())


def has_columns(version: int) -> bool:
    """Return whether rows that this version wrote need no upgrade but ``add_younger_columns``."""
    return _COLUMNS_VERSION <= version <= SCHEMA_VERSION


def add_younger_columns(table: pa.Table, columns: Collection[str] = YOUNGER_COLUMNS) -> pa.Table:
    """Add those of the ``columns`` that came last and that rows of an older version lack."""
    names = table.schema.names
    missing = [name for name in YOUNGER_COLUMNS if name in columns and name not in names]
    added = [_no_retries(len(table)) if name == "retries" else pa.nulls(len(table), pa.float64()) for name in missing]
    return pa.Table.from_arrays([*table.columns, *added], [*names, *missing]) if missing else table


def _no_retries(rows: int) -> pa.Array:
    """Return an empty list for each row; from offsets, as a list of lists takes a hundred times as long."""
    return pa.ListArray.from_arrays(pa.array(np.zeros(rows + 1, np.int32)), pa.array([], pa.string()))


def upgrade(table: pa.Table) -> pa.Table:
    """Return rows that any version wrote, with today's columns.

    Raises:
        KeyError: a column is missing that every version has.
        pa.ArrowInvalid: a column is of another type.
    """
    table = add_younger_columns(table)
    if set(table.schema.names) != set(SCHEMA.names):
        table = _add_columns(table)
    table = table.select(SCHEMA.names)
    return table if table.schema.equals(SCHEMA) else table.cast(SCHEMA)


def _add_columns(table: pa.Table) -> pa.Table:
    """Add the columns that an older version lacks.

    After version 1 came the first stage's cost; after 2 ``evaluated_on`` (before, it was always the test set, whose
    size had another name); after 3 ``evaluated_parameters``; after 4 the method's warnings; after 5 the metrics of
    detectors, and a teacher's metrics other than top-1; after 7 the fidelity, after 8 the retries, and after
    9 the cost of waiting, which ``add_younger_columns`` adds.
    """
    if "test_size" in table.schema.names:
        table = table.rename_columns({"test_size": "evaluated_size"})
    rows = len(table)
    added: dict[str, pa.Array] = {
        "cost_first_stage_s": pa.array([0.0] * rows),
        "evaluated_on": pa.array(["test"] * rows),
        "evaluated_parameters": table.column("student_parameters"),
        "warnings": pa.array([[]] * rows, pa.list_(pa.string())),
    }
    of_first = {*(f"{when}_{m}" for when in ("last", "best") for m in ("top1", "top5", "loss")), "teacher_top1"}
    measured = {f"{what}_{m}" for what in ("last", "best", "teacher") for m in METRICS}
    added |= {name: pa.nulls(rows, pa.float64()) for name in measured - of_first}
    for name, values in added.items():
        if name not in table.schema.names:
            table = table.append_column(name, values)
    return table

"""The columns of a record, and the upgrade of rows that an older version wrote."""

import pyarrow as pa

from harness.spec.tasks import METRICS

SCHEMA_VERSION = 6
COST_PARTS = ("data", "teacher", "student", "method", "evaluation", "first_stage")

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
        pa.field("warnings", pa.list_(pa.string())),  # of the method, from the last epoch's means
        pa.field(
            "curves", pa.list_(pa.struct([("epoch", pa.int32()), ("name", pa.string()), ("value", pa.float64())]))
        ),
        # cost, in seconds: this run's share of its pack; first_stage: everything in the stage before the main one
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
        pa.field("started_at", pa.timestamp("us", tz="UTC")),
        pa.field("finished_at", pa.timestamp("us", tz="UTC")),
    ]
)


def upgrade(table: pa.Table) -> pa.Table:
    """Return rows that any version wrote, with today's columns.

    Raises:
        KeyError: a column is missing that every version has.
        pa.ArrowInvalid: a column is of another type.
    """
    if set(table.schema.names) != set(SCHEMA.names):
        table = _add_columns(table)
    table = table.select(SCHEMA.names)
    return table if table.schema.equals(SCHEMA) else table.cast(SCHEMA)


def _add_columns(table: pa.Table) -> pa.Table:
    """Add the columns that an older version lacks.

    After version 1 came the first stage's cost; after 2 ``evaluated_on`` (before, it was always the test set, whose
    size had another name); after 3 ``evaluated_parameters``; after 4 the method's warnings; after 5 the metrics of
    detectors, and a teacher's metrics other than top-1.
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

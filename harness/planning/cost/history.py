"""The time that past runs took, read from their records."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.planning.cost.past_run import PastRun, image_counts
from harness.spec.science import Science, distinct_sciences
from harness.store import records
from harness.store.store import Store

Floats = NDArray[np.float64]
JOB_COLUMNS = ("run_id", "host", "started_at", "finished_at", "attempts", "pack_size", "cost_total_s")
_COLUMNS = (
    *JOB_COLUMNS, "dataset", "status", "science", "seed", "hardware", "threads",
    "processes", "evaluated_parameters", "method_parameters", "cost_waiting_s", "cost_data_s", "cost_teacher_s",
    "cost_student_s", "cost_method_s", "cost_evaluation_s", "cost_first_stage_s",
)  # fmt: skip
_KEYS = ("like", "hardware", "threads", "processes")
_SIZES = ("evaluated_parameters", "method_parameters")
_MEASURED = ("own", "data", "teacher", "evaluation", "first_stage", "overhead")


@dataclass(frozen=True)
class Jobs:
    """The jobs behind a table of records. ``index`` is (rows,), the others (jobs,)."""

    index: NDArray[np.int64]  # the job of each row
    seconds: Floats  # from the start of the process to the last record, with what earlier attempts trained
    trained: Floats  # seconds that records account for


def jobs(table: pa.Table) -> Jobs:
    """Return the jobs of rows with ``JOB_COLUMNS``; a job is the process that trained them."""
    started = pc.cast(table.column("started_at"), pa.int64())
    names = pc.binary_join_element_wise(table.column("host"), pc.cast(started, pa.string()), " ")
    index = names.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    count = int(index.max()) + 1 if len(index) else 0
    trained = np.bincount(index, weights=_floats(table, "cost_total_s"), minlength=count).astype(np.float64)
    seconds = np.zeros(count)
    row_seconds = pc.subtract(pc.cast(table.column("finished_at"), pa.int64()), started)
    np.maximum.at(seconds, index, row_seconds.to_numpy() / 1e6)
    return Jobs(index, np.maximum(seconds, trained), trained)


def read_history(store: Store, dataset: str) -> list[PastRun]:
    """Return all finished runs of a dataset that did not diverge.

    Raises:
        UserError: a damaged record.
    """
    table = records.read_records(store, store.done_ids(), _COLUMNS)
    table = table.filter(pc.and_(pc.equal(table.column("dataset"), dataset), pc.equal(table.column("status"), "done")))
    if not len(table):
        return []
    by_text, positions = distinct_sciences(table.column("science").to_pylist(), table.column("seed").to_pylist())
    like, sciences = np.array(positions, np.int64), list(by_text.values())
    aggregations = [*((name, "list") for name in _MEASURED), *((name, "max") for name in _SIZES), ("seed", "list")]
    groups = _measured(table, like, sciences).group_by(list(_KEYS), use_threads=False).aggregate(aggregations)
    return [_past(sciences[group["like"]], group) for group in groups.to_pylist()]


def _measured(table: pa.Table, like: NDArray[np.int64], sciences: Sequence[Science]) -> pa.Table:
    """Return the columns of ``PastRun``; ``like`` is the position of each row's science in ``sciences``."""
    of_jobs = jobs(table)
    counts = np.array([image_counts(science) for science in sciences], dtype=np.float64)
    images, evaluated = counts[like].T
    teacher = _floats(table, "cost_teacher_s")
    # A record holds its share of what its pack did together: of the data pass an equal one, of the teacher's forward
    # that of its learners.
    of_packs = _packs(table, of_jobs)
    learners = np.bincount(of_packs, weights=teacher > 0)[of_packs]
    pack_size = _floats(table, "pack_size")
    complete = (np.bincount(of_packs)[of_packs] == pack_size) & (_floats(table, "attempts") == 1)
    whole = np.ones(len(of_jobs.seconds), bool)
    np.logical_and.at(whole, of_jobs.index, complete)
    columns = {
        "own": (_floats(table, "cost_student_s") + _floats(table, "cost_method_s")) / images,
        "data": (np.nan_to_num(_floats(table, "cost_waiting_s")) + _floats(table, "cost_data_s")) * pack_size / images,
        "teacher": teacher * learners / images,
        "evaluation": _floats(table, "cost_evaluation_s") / evaluated,
        "first_stage": _floats(table, "cost_first_stage_s"),
        "overhead": np.where(whole, of_jobs.seconds - of_jobs.trained, np.nan)[of_jobs.index],
    }
    table = table.select([*_KEYS[1:], *_SIZES, "seed"]).append_column("like", pa.array(like))
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    return table


def _packs(table: pa.Table, of_jobs: Jobs) -> NDArray[np.int64]:
    """Return the pack of each row: the runs of one seed in a job."""
    keys = np.stack([of_jobs.index, table.column("seed").to_numpy().astype(np.int64)])
    return np.unique(keys, axis=1, return_inverse=True)[1].reshape(-1)


def _past(science: Science, group: dict[str, Any]) -> PastRun:
    values: dict[str, Any] = {name: group[name] for name in _KEYS[1:]}
    values |= {name: group[f"{name}_max"] for name in _SIZES}
    values |= {name: np.array(group[f"{name}_list"]) for name in _MEASURED}
    return PastRun(science, frozenset(group["seed_list"]), **values)


def _floats(table: pa.Table, name: str) -> Floats:
    return table.column(name).to_numpy().astype(np.float64)

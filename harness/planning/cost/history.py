"""What past runs took, read from their records."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.planning.cost.past_run import PastRun, image_counts
from harness.store import records
from harness.store.store import Store

Floats = NDArray[np.float64]
JOB_COLUMNS = ("run_id", "host", "started_at", "finished_at", "attempts", "pack_size", "cost_total_s")
_COLUMNS = (
    *JOB_COLUMNS, "dataset", "status", "science", "hardware", "threads",
    "processes", "evaluated_parameters", "method_parameters", "cost_data_s", "cost_teacher_s",
    "cost_student_s", "cost_method_s", "cost_evaluation_s", "cost_first_stage_s",
)  # fmt: skip
_KEYS = ("like", "hardware", "threads", "processes")
_SIZES = ("evaluated_parameters", "method_parameters")
_MEASURED = ("own", "data", "teacher", "evaluation", "first_stage", "around")


@dataclass(frozen=True)
class Jobs:
    """The jobs behind a table of records. ``of`` is (rows,), the others (jobs,)."""

    of: NDArray[np.int64]  # the job of each row
    records: NDArray[np.int64]
    seconds: Floats  # from the start of the process to the last record, with what earlier attempts trained
    trained: Floats  # seconds that records account for


def jobs(table: pa.Table) -> Jobs:
    """Rows with ``JOB_COLUMNS`` by the process that trained them."""
    started = pc.cast(table.column("started_at"), pa.int64())
    names = pc.binary_join_element_wise(table.column("host"), pc.cast(started, pa.string()), " ")
    of = names.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    count = int(of.max()) + 1 if len(of) else 0
    trained = np.bincount(of, weights=_floats(table, "cost_total_s"), minlength=count).astype(np.float64)
    lasted = np.zeros(count)
    took = pc.subtract(pc.cast(table.column("finished_at"), pa.int64()), started)
    np.maximum.at(lasted, of, took.to_numpy() / 1e6)
    return Jobs(of, np.bincount(of, minlength=count), np.maximum(lasted, trained), trained)


def read_history(store: Store, dataset: str) -> list[PastRun]:
    """All finished runs of a dataset that did not diverge.

    Raises:
        UserError: a damaged record.
    """
    table = records.read_records(store, store.done_ids(), _COLUMNS)
    table = table.filter(pc.and_(pc.equal(table.column("dataset"), dataset), pc.equal(table.column("status"), "done")))
    if not len(table):
        return []
    return [_past(group) for group in _grouped(_measured(table)).to_pylist()]


def _measured(table: pa.Table) -> pa.Table:
    """With the columns that ``Past`` names."""
    of_jobs = jobs(table)
    like = _like(table)
    counts = np.array([image_counts(json.loads(text)) for text in like.dictionary.to_pylist()], dtype=np.float64)
    images, evaluated = counts[like.indices.to_numpy()].T
    teacher = _floats(table, "cost_teacher_s")
    # A record has its share of what its pack did for all: an equal one of the data, and of the teacher what its
    # learners have shared.
    learners = np.bincount(of_jobs.of, weights=teacher > 0)[of_jobs.of]
    pack_size = _floats(table, "pack_size")
    whole = (of_jobs.records[of_jobs.of] == pack_size) & (_floats(table, "attempts") == 1)
    found = {
        "own": (_floats(table, "cost_student_s") + _floats(table, "cost_method_s")) / images,
        "data": _floats(table, "cost_data_s") * pack_size / images,
        "teacher": teacher * learners / images,
        "evaluation": _floats(table, "cost_evaluation_s") / evaluated,
        "first_stage": _floats(table, "cost_first_stage_s"),
        "around": np.where(whole, (of_jobs.seconds - of_jobs.trained)[of_jobs.of], np.nan),
    }
    table = table.select([*_KEYS[1:], *_SIZES]).append_column("like", like.cast(pa.string()))
    for name, values in found.items():
        table = table.append_column(name, pa.array(values))
    return table


def _like(table: pa.Table) -> pa.DictionaryArray:
    """Sciences without their seeds: few, however many runs there are."""
    texts = pc.replace_substring_regex(table.column("science"), '"seed":[0-9]+', '"seed":0')
    return texts.combine_chunks().dictionary_encode()


def _grouped(table: pa.Table) -> pa.Table:
    wanted = [*((name, "list") for name in _MEASURED), *((name, "max") for name in _SIZES)]
    return table.group_by(list(_KEYS), use_threads=False).aggregate(wanted)


def _past(group: dict[str, Any]) -> PastRun:
    return PastRun(
        science=json.loads(group["like"]),
        hardware=group["hardware"],
        threads=group["threads"],
        processes=group["processes"],
        evaluated_parameters=group["evaluated_parameters_max"],
        method_parameters=group["method_parameters_max"],
        **{name: np.array(group[f"{name}_list"]) for name in _MEASURED},
    )


def _floats(table: pa.Table, name: str) -> Floats:
    return table.column(name).to_numpy().astype(np.float64)

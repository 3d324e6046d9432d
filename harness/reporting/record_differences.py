"""Differences between the records of two runs, and between those of two stores."""

import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from harness.spec.science_differences import Difference, Differences, ScienceDifferences, flat_differences
from harness.spec.tasks import METRICS
from harness.store import records, schema
from harness.store.store import Store
from harness.store.stored_sciences import read_sciences

_NAMES = ("run_id", "student", "teacher", "method", "seed")
_PROVENANCE = ("git_commit", "git_dirty", "versions", "hardware", "threads", "processes", "host")
_RESULTS = (
    "status", *(f"{when}_{m}" for when in ("last", "best") for m in METRICS), "best_epoch", *schema.FIDELITY_COLUMNS,
    "weights_sha256", *(f"teacher_{m}" for m in METRICS), "teacher_sha256",
)  # fmt: skip
# Those that two records of one run have in common: as for a merge of stores.
_OF_ONE_RUN = tuple(name for name in _RESULTS if name in schema.RESULTS)
# Different whenever a run is trained again, so that they say nothing about whether stores are equal.
_COST = ("cost_total_s", *(f"cost_{part}_s" for part in schema.COST_PARTS), "pack_size", "peak_memory_bytes")


class StoredRun(NamedTuple):
    """A run that has a record, with its name for people."""

    run_id: str
    label: str


@dataclass(frozen=True)
class RunDifferences:
    """Differences between two finished runs."""

    first: StoredRun
    second: StoredRun
    science: Differences
    provenance: Differences
    results: Differences
    cost: Differences


class ChangedRecord(NamedTuple):
    """A run whose results differ in two stores."""

    run: StoredRun
    keys: tuple[Difference, ...]


class OtherProvenance(NamedTuple):
    """A difference in provenance, and the number of runs that have it."""

    difference: Difference
    runs: int


@dataclass(frozen=True)
class StoreDifferences:
    """Differences between the records of two stores, each in the order of run ids."""

    same: int  # runs in both, with equal results
    only_first: tuple[StoredRun, ...]
    only_second: tuple[StoredRun, ...]
    changed: tuple[ChangedRecord, ...]
    provenance: tuple[OtherProvenance, ...]  # of runs in both; most runs first

    def __bool__(self) -> bool:
        """Return whether runs or results differ: another machine or commit alone makes no difference."""
        return bool(self.only_first or self.only_second or self.changed)


def run_differences(store: Store, first: str, second: str) -> RunDifferences:
    """Return the differences between two runs of a store.

    Raises:
        UserError: a damaged record.
    """
    columns = (*_NAMES, *_PROVENANCE, *_RESULTS, *_COST)
    rows = {row["run_id"]: row for row in records.read_records(store, (first, second), columns).to_pylist()}
    sciences = read_sciences(store, (first, second))
    pair = rows[first], rows[second]
    science = ScienceDifferences(sciences.get).between(sciences[first], sciences[second])
    provenance, results, cost = (_of_columns(*pair, part) for part in (_PROVENANCE, _RESULTS, _COST))
    return RunDifferences(_stored_run(pair[0]), _stored_run(pair[1]), science, provenance, results, cost)


def store_differences(first: Store, second: Store) -> StoreDifferences:
    """Return the differences between two stores. Runs with one id have one science.

    Raises:
        UserError: a damaged record.
    """
    ids = first.done_ids(), second.done_ids()
    both = ids[0] & ids[1]
    # By columns, and rows only where they differ: stores may have 100,000 runs in common.
    tables = [records.read_records(store, both, (*_NAMES, *_PROVENANCE, *_OF_ONE_RUN)) for store in (first, second)]
    other_results = _rows_that_differ(tables, _OF_ONE_RUN)
    changed = tuple(
        ChangedRecord(_stored_run(pair[0]), _of_columns(*pair, _OF_ONE_RUN).keys)
        for pair in _pairs(tables, other_results)
    )
    return StoreDifferences(
        len(both) - len(changed),
        _stored_runs(first, ids[0] - both),
        _stored_runs(second, ids[1] - both),
        changed,
        _provenance([table.select(_PROVENANCE) for table in tables]),
    )


def _provenance(tables: list[pa.Table]) -> tuple[OtherProvenance, ...]:
    alike = Counter(
        tuple(tuple(row.values()) for row in pair) for pair in _pairs(tables, _rows_that_differ(tables, _PROVENANCE))
    )
    runs: Counter[Difference] = Counter()
    for values, count in alike.items():
        first, second = (dict(zip(_PROVENANCE, side, strict=True)) for side in values)
        for difference in _of_columns(first, second, _PROVENANCE).keys:
            runs[difference] += count
    ordered = sorted(runs.items(), key=lambda item: (-item[1], str(item[0])))
    return tuple(OtherProvenance(*item) for item in ordered)


def _rows_that_differ(tables: list[pa.Table], columns: Collection[str]) -> pa.Array:
    different = pa.chunked_array([pa.array([False] * len(tables[0]), pa.bool_())])
    for name in columns:
        first, second = (table.column(name) for table in tables)
        equal = pc.fill_null(pc.equal(first, second), pc.and_(pc.is_null(first), pc.is_null(second)))
        if pa.types.is_floating(first.type):
            equal = pc.or_(equal, pc.fill_null(pc.and_(pc.is_nan(first), pc.is_nan(second)), False))
        different = pc.or_(different, pc.invert(equal))
    return pc.indices_nonzero(different)


def _pairs(tables: list[pa.Table], rows: pa.Array) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    return zip(*(table.take(rows).to_pylist() for table in tables), strict=True)


def _of_columns(first: dict[str, Any], second: dict[str, Any], columns: Collection[str]) -> Differences:
    return flat_differences(*({k: v for name in columns for k, v in _flat(name, row[name])} for row in (first, second)))


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if name == "versions":
        yield from ((f"versions.{package}", version) for package, version in json.loads(value).items())
    else:
        yield name, "nan" if value != value else value  # equal to itself, and JSON


def _stored_runs(store: Store, run_ids: Collection[str]) -> tuple[StoredRun, ...]:
    return tuple(map(_stored_run, records.read_records(store, run_ids, _NAMES).to_pylist())) if run_ids else ()


def _stored_run(row: dict[str, Any]) -> StoredRun:
    models = f"{row['teacher']} > {row['student']}" if row["teacher"] else row["student"]
    return StoredRun(row["run_id"], f"{models} / {row['method']} / seed {row['seed']}")

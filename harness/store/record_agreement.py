"""Records of one run in several stores: whether they have the same result."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from harness.errors import UserError
from harness.phrases import some
from harness.spec.lines import Line, PairNames
from harness.spec.run_labels import run_label
from harness.spec.tasks import CATALOG
from harness.store import record_stream, records
from harness.store.schema import PROVENANCE, RESULTS, SCHEMA_VERSION
from harness.store.store import Store

_OTHER_RESULTS = tuple(name for name in RESULTS if name != "curves")
_OTHER_PROVENANCE = tuple(sorted(PROVENANCE))


class RunRecord(NamedTuple):
    """The weights and teachers that a record names, and digests by which it is compared with another record."""

    student: str
    teacher_runs: tuple[str, ...]
    weights_sha256: str
    results: str = ""
    provenance: str = ""


def read_run_records(store: Store, run_ids: Iterable[str], compared: Set[str]) -> dict[str, RunRecord]:
    """Read and check whole records. Those of ``compared`` get digests.

    Raises:
        UserError: a record is damaged, or of a newer version.
    """
    read = dict[str, RunRecord]()
    for table in record_stream.stream_records(store, run_ids):
        columns = ("run_id", "schema_version", "student", "teacher_run", "weights_sha256")
        for i, row in enumerate(table.select(columns).to_pylist()):
            run_id = row["run_id"]
            if row["schema_version"] > SCHEMA_VERSION:
                raise UserError(
                    f"{store.root}: the record of run {run_id} has schema_version {row['schema_version']}, which is "
                    "newer than this harness"
                )
            teachers = tuple(row["teacher_run"].split(" + ")) if row["teacher_run"] else ()
            digests = _digests(table.slice(i, 1)) if run_id in compared else ()
            read[run_id] = RunRecord(row["student"], teachers, row["weights_sha256"], *digests)
    return read


def conflicts(stores: Sequence[tuple[Store, Mapping[str, RunRecord]]]) -> list[UserError]:
    """Return an error for each run of which two of the stores have different results."""
    first = dict[str, tuple[Store, RunRecord]]()
    found = dict[str, UserError]()
    for store, of_store in stores:
        for run_id, record in of_store.items():
            other, known = first.setdefault(run_id, (store, record))
            if known.results != record.results and run_id not in found:
                found[run_id] = _conflict(run_id, other, store)
    return [found[run_id] for run_id in sorted(found)]


def in_several(groups: Iterable[Collection[str]]) -> set[str]:
    """Return the runs that more than one of the groups has."""
    seen, several = set[str](), set[str]()
    for group in groups:
        several |= seen.intersection(group)
        seen.update(group)
    return several


def _digests(row: pa.Table) -> tuple[str, str]:
    """Return the digests of a row's results and of its provenance."""
    results = hashlib.sha256(repr(row.select(_OTHER_RESULTS).to_pylist()).encode())
    curves = row.column("curves").combine_chunks().flatten()
    epochs, values = (curves.field(name).to_numpy(zero_copy_only=False) for name in ("epoch", "value"))
    results.update(epochs.tobytes() + np.where(np.isnan(values), np.nan, values).tobytes())
    results.update("\n".join(curves.field("name").to_pylist()).encode())
    provenance = hashlib.sha256(repr(row.select(_OTHER_PROVENANCE).to_pylist()).encode())
    return results.hexdigest(), provenance.hexdigest()


def _conflict(run_id: str, one: Store, other: Store) -> UserError:
    (row,), (second,) = (records.read_records(store, [run_id]).to_pylist() for store in (one, other))
    pair = PairNames(row["teacher"], row["student"]) if row["teacher"] else row["student"]
    line = Line(row["teacher"] or "", row["student"], row["method"])
    label = run_label(line, row["seed"]) if row["teacher"] else f"{pair} / {row['method']} / seed {row['seed']}"
    different = [name for name in RESULTS if repr(row[name]) != repr(second[name])]
    return UserError(
        f"run {run_id} ({label}) has two results, which differ in {some(different)}: {_described(row, one)}; "
        f"{_described(second, other)}"
    )


def _described(row: dict[str, Any], store: Store) -> str:
    shown = [
        f"{task.shown} {row[name]:.4f} %" for task in CATALOG.values() if row[name := f"last_{task.score}"] is not None
    ]
    commit = (row["git_commit"] or "none")[:12] + (" with changes" if row["git_dirty"] else "")
    score = shown[0] if shown else row["status"]
    return f"{score} (commit {commit}, host {row['host']}, {row['finished_at']:%Y-%m-%d}) in {store.root}"

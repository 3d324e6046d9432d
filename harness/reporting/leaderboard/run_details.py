"""The runs behind the lines, as the page holds them: what each was made of, and its curves, thinned."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate, chain, takewhile
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.reporting import curves
from harness.reporting.curves import Curve, Curves
from harness.reporting.leaderboard.entries import LeaderboardEntry
from harness.spec.tasks import CATALOG, TaskInfo
from harness.store.schema import COST_PARTS

WHOLE = 5000  # runs of a store that a page has in full: 100,000 would be too much to read, to write and to open
NEWEST = 500  # runs of a larger one whose details the page has
_RUNS_PER_CHUNK = 100  # about what a browser unpacks to show one line's runs
_CURVE_POINTS = 40  # of a run's curve, to five digits: the page must stay small, and the record has all
_PROVENANCE = (
    "run_id", "seed", "status", "best_epoch",
    "student_parameters", "evaluated_parameters", "method_parameters", "weights_sha256",
    "dataset_version", "teacher_run", "teacher_sha256",
    "git_commit", "git_dirty", "hardware", "threads", "processes", "host", "attempts", "pack_size", "peak_memory_bytes",
)  # fmt: skip
_COSTS = {part: f"cost_{part}_s" for part in (*COST_PARTS, "total")}
# Task -> what is said of its runs alone
_MEASURED = {
    task: (*(f"{when}_{m}" for when in ("last", "best") for m in task.metrics), f"teacher_{task.score}")
    for task in CATALOG.values()
}
_ROW = (
    *_PROVENANCE,
    *chain(*_MEASURED.values()),
    *_COSTS.values(),
    "versions",
    "started_at",
    "finished_at",
    "warnings",
)
COLUMNS = (*_ROW, "curves")  # of the records, which details are made of
Data = dict[str, Any]


def chunks_of(found: Sequence[LeaderboardEntry]) -> list[list[LeaderboardEntry]]:
    """The lines whose runs the page holds: all of ``WHOLE`` runs or fewer, else those last added to. In chunks."""
    newest = sorted(found, key=lambda line: (-line.newest, line.id))
    runs = list(accumulate(len(line.run_ids) for line in newest))
    most = NEWEST if runs and runs[-1] > WHOLE else WHOLE
    held = {line.id for line, _ in takewhile(lambda item: item[1] <= most, zip(newest, runs, strict=True))}
    return list(_cut([line for line in found if line.id in held]))


def _cut(found: Sequence[LeaderboardEntry]) -> Iterator[list[LeaderboardEntry]]:
    some: list[LeaderboardEntry] = []
    for line in found:
        some.append(line)
        if sum(len(line.run_ids) for line in some) >= _RUNS_PER_CHUNK:
            yield some
            some = []
    if some:
        yield some


def details(chunks: Sequence[Sequence[LeaderboardEntry]], table: pa.Table) -> tuple[Data, ...]:
    """For each chunk line id -> its runs. ``table``: records of these runs at least, with ``COLUMNS``."""
    rows = {row["run_id"]: row for row in table.select(_ROW).to_pylist()}
    of_runs = curves.curves_of(table)
    return tuple({line.id: _details(line, rows, of_runs) for line in chunk} for chunk in chunks)


def _details(line: LeaderboardEntry, rows: Mapping[str, Data], of_runs: Mapping[str, Curves]) -> Data:
    runs = [_run(rows[run_id], of_runs[run_id], line.protocol.task) for run_id in line.run_ids]
    return {"science": line.science.without_seed(), "defaults_changed": list(line.settings), "runs": runs}


def _run(row: Data, of_run: Curves, task: TaskInfo) -> Data:
    return {
        **{k: number(row[k]) if isinstance(row[k], float) else row[k] for k in (*_PROVENANCE, *_MEASURED[task])},
        "versions": json.loads(row["versions"]),
        "started_at": row["started_at"].isoformat(" ", "seconds"),
        "finished_at": row["finished_at"].isoformat(" ", "seconds"),
        "cost_s": {part: number(row[name]) for part, name in _COSTS.items()},
        "warnings": row["warnings"],
        "curves": {name: _curve(curve) for name, curve in of_run.items()},
    }


def _curve(curve: Curve) -> list[list[Any]]:
    """Epochs and values: first, last and evenly between."""
    at = _evenly(len(curve.epochs))
    values = curve.values[at].tolist()
    return [curve.epochs[at].tolist(), [float(f"{v:.5g}") if math.isfinite(v) else None for v in values]]


@cache
def _evenly(points: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, points - 1, min(points, _CURVE_POINTS)).round().astype(np.int64))


def number(value: float | None) -> float | None:
    """Twelve significant digits; None for what JSON has no word for."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.12g}")

"""Details of the runs behind the page's lines: provenance, scores, cost and thinned curves."""

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
from harness.store.schema import COST_PARTS, FIDELITY_COLUMNS

WHOLE = 5000  # runs of a store whose details a page has completely: 100,000 would be too slow to open
NEWEST = 500  # runs of a larger store whose details the page has
_RUNS_PER_CHUNK = 100  # about as many a browser unpacks to show one line's runs
_CURVE_POINTS = 40  # of a run's curve, to five digits, to keep the page small; the record has all
_PROVENANCE = (
    "run_id", "seed", "status", "best_epoch",
    "student_parameters", "evaluated_parameters", "method_parameters", "weights_sha256",
    "dataset_version", "teacher_run", "teacher_sha256",
    "git_commit", "git_dirty", "hardware", "threads", "processes", "host", "attempts", "pack_size", "peak_memory_bytes",
)  # fmt: skip
_COSTS = {part: f"cost_{part}_s" for part in (*COST_PARTS, "total")}
# Task -> columns of its own runs only
_MEASURED = {
    task: (*(f"{when}_{m}" for when in ("last", "best") for m in task.metrics), f"teacher_{task.score}")
    for task in CATALOG.values()
}
_ROW = (
    *_PROVENANCE,
    *chain(*_MEASURED.values()),
    *FIDELITY_COLUMNS,
    *_COSTS.values(),
    "versions",
    "started_at",
    "finished_at",
    "warnings",
    "retries",
)
COLUMNS = (*_ROW, "curves")  # of the records
Data = dict[str, Any]


def chunks_of(lines: Sequence[LeaderboardEntry]) -> list[list[LeaderboardEntry]]:
    """Return in chunks the lines whose runs the page holds: all up to ``WHOLE`` runs, else the newest."""
    newest = sorted(lines, key=lambda line: (-line.newest, line.id))
    runs = list(accumulate(len(line.run_ids) for line in newest))
    most = NEWEST if runs and runs[-1] > WHOLE else WHOLE
    held = {line.id for line, _ in takewhile(lambda item: item[1] <= most, zip(newest, runs, strict=True))}
    return list(_cut([line for line in lines if line.id in held]))


def _cut(lines: Sequence[LeaderboardEntry]) -> Iterator[list[LeaderboardEntry]]:
    chunk: list[LeaderboardEntry] = []
    for line in lines:
        chunk.append(line)
        if sum(len(line.run_ids) for line in chunk) >= _RUNS_PER_CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def details(chunks: Sequence[Sequence[LeaderboardEntry]], table: pa.Table) -> tuple[Data, ...]:
    """Return for each chunk line id -> runs. ``table``: the records of at least these runs, with ``COLUMNS``."""
    rows = {row["run_id"]: row for row in table.select(_ROW).to_pylist()}
    of_runs = curves.curves_of(table)
    return tuple({line.id: _details(line, rows, of_runs) for line in chunk} for chunk in chunks)


def _details(line: LeaderboardEntry, rows: Mapping[str, Data], of_runs: Mapping[str, Curves]) -> Data:
    runs = [_run(rows[run_id], of_runs[run_id], line.protocol.task) for run_id in line.run_ids]
    return {"science": line.science.without_seed(), "defaults_changed": list(line.settings), "runs": runs}


def _run(row: Data, of_run: Curves, task: TaskInfo) -> Data:
    return {
        **{k: number(row[k]) if isinstance(row[k], float) else row[k] for k in (*_PROVENANCE, *_MEASURED[task])},
        **{k: number(row[k]) for k in FIDELITY_COLUMNS if row[k] is not None},
        **({"retries": "; ".join(row["retries"])} if row["retries"] else {}),
        "versions": json.loads(row["versions"]),
        "started_at": row["started_at"].isoformat(" ", "seconds"),
        "finished_at": row["finished_at"].isoformat(" ", "seconds"),
        "cost_s": {part: number(row[name]) for part, name in _COSTS.items()},
        "warnings": row["warnings"],
        "curves": {name: _curve(curve) for name, curve in of_run.items()},
    }


def _curve(curve: Curve) -> list[list[Any]]:
    """Return epochs and values: the first, the last and evenly spaced ones between."""
    shown = _evenly_spaced(len(curve.epochs))
    values = curve.values[shown].tolist()
    return [curve.epochs[shown].tolist(), [float(f"{v:.5g}") if math.isfinite(v) else None for v in values]]


@cache
def _evenly_spaced(points: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, points - 1, min(points, _CURVE_POINTS)).round().astype(np.int64))


def number(value: float | None) -> float | None:
    """Return twelve significant digits; None for a value that JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.12g}")

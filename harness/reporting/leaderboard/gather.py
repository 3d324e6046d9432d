"""What the page shows of a store, as data that JSON can hold. The same records give the same data."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from harness.errors import UserError
from harness.reporting import comparison, curves, figures, protocols
from harness.reporting.comparison import Contents, Spread
from harness.reporting.curves import Curve, Curves
from harness.reporting.figures.style import COLUMN, render
from harness.reporting.leaderboard.lines import Line, Protocol, ambiguous_teachers, lines
from harness.store import records
from harness.store.schema import COST_PARTS
from harness.store.store import Store

LINES_PER_CHUNK = 50  # what a browser unpacks to show one line's runs
CURVE_POINTS, CURVE_DIGITS = 40, 5  # of a run's curve: the page must stay small, and the record has all
MOST_SWEEPS = 12  # that have their figures drawn on the page
MOST_FAILURES = 1000
LOG_LINES = 12
_PROVENANCE = (
    "run_id", "seed", "status", "best_epoch",
    "last_top1", "last_top5", "last_loss", "best_top1", "best_top5", "best_loss",
    "student_parameters", "evaluated_parameters", "method_parameters", "weights_sha256",
    "dataset_version", "teacher_run", "teacher_sha256", "teacher_top1",
    "git_commit", "git_dirty", "hardware", "threads", "processes", "host", "attempts", "pack_size", "peak_memory_bytes",
)  # fmt: skip
Data = dict[str, Any]


@dataclass(frozen=True)
class Picture:
    caption: str
    svg: bytes
    wide: bool  # as both columns of a two-column page


@dataclass(frozen=True)
class SweepFigures:
    sweep: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Board:
    overview: Data  # protocols, lines, failures
    chunks: tuple[Data, ...]  # line id -> its runs; a line says which chunk has them
    figures: tuple[SweepFigures, ...]
    figures_note: str  # what is not drawn


def gather(store: Store) -> Board:
    """Reads all records, failures and tables of a store.

    Raises:
        UserError: a damaged record.
    """
    return board(store, records.read(store, store.done_ids()))


def board(store: Store, table: pa.Table) -> Board:
    """As ``gather``, of records that have been read."""
    rows = table.drop_columns(["curves"]).to_pylist()
    contents, unread = _tables(store)
    found = lines(rows, _entries(contents))
    drawn, note = _figures(store, contents, {r["run_id"]: r["finished_at"] for r in rows})
    return Board(
        overview={
            "newest": max((r["finished_at"] for r in rows), default=datetime.min).isoformat(" ", "minutes")[:16],
            "runs": len(rows),
            "unread": unread,
            "protocols": {p.id: {"dataset": p.dataset, "label": p.label} for p in _protocols(found)},
            "lines": _overview(found),
            **_failures(store),
        },
        chunks=_chunks(found, {r["run_id"]: r for r in rows}, curves.of(table)),
        figures=drawn,
        figures_note=note,
    )


def _tables(store: Store) -> tuple[list[Contents], list[str]]:
    """What the store's tables are of, and the names of those that cannot be read, which keep nobody from the rest."""
    found, unread = [], []
    for file in sorted(store.table_folder("x").parent.glob("*/contents.json")):
        try:
            found.append(Contents.read(file.parent))
        except UserError:
            unread.append(file.parent.name)
    return found, unread


def _entries(contents: Iterable[Contents]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for content in contents:
        for cell in content.cells:
            found.setdefault(cell.run_id, []).append(f"{content.name}: {cell.method}")
    return found


def _protocols(found: Iterable[Line]) -> list[Protocol]:
    protocols = {line.protocol.id: line.protocol for line in found}
    return sorted(protocols.values(), key=lambda p: (p.dataset, p.held_out, p.label, p.id))


def _overview(found: Sequence[Line]) -> list[Data]:
    ambiguous = ambiguous_teachers(found)
    return [_line(line, i, (line.protocol.id, line.teacher) in ambiguous) for i, line in enumerate(found)]


def _line(line: Line, i: int, ambiguous: bool) -> Data:
    teacher = f"{line.teacher} ({line.teacher_key[:6]})" if ambiguous else line.teacher
    return {
        "id": line.id,
        "chunk": i // LINES_PER_CHUNK,
        "protocol": line.protocol.id,
        "pair": f"{teacher} > {line.student}" if teacher else f"{line.student} alone",
        "method": line.use,
        "settings": ", ".join(f"{k} {_said(v)}" for k, v in line.settings.items()),
        "sweeps": list(line.sweeps),
        "runs": list(line.run_ids),
        "rank": line.rank,
        "last": _spread(line.last),
        "best": _spread(line.best),
        "to_baseline": _spread(line.to_baseline),
        "to_reference": _spread(line.to_reference),
        "teacher_top1": _number(line.teacher_top1),
        "hours": _number(line.cost.hours if line.cost else None),
        "unit": line.cost.unit if line.cost else None,
        "per_hour": _number(line.per_hour),
        "diverged": line.diverged,
        "warnings": line.warnings,
    }


def _chunks(found: Sequence[Line], rows: Mapping[str, Data], of_runs: Mapping[str, Curves]) -> tuple[Data, ...]:
    chunks = []
    for start in range(0, len(found), LINES_PER_CHUNK):
        some = found[start : start + LINES_PER_CHUNK]
        chunks.append({line.id: _runs(line, rows, of_runs) for line in some})
    return tuple(chunks)


def _runs(line: Line, rows: Mapping[str, Data], of_runs: Mapping[str, Curves]) -> Data:
    runs = [_run(rows[run_id], of_runs[run_id]) for run_id in line.run_ids]
    return {"science": line.science, "defaults_changed": list(line.settings), "runs": runs}


def _run(row: Data, of_run: Curves) -> Data:
    return {
        **{k: _number(row[k]) if isinstance(row[k], float) else row[k] for k in _PROVENANCE},
        "versions": json.loads(row["versions"]),
        "started_at": row["started_at"].isoformat(" ", "seconds"),
        "finished_at": row["finished_at"].isoformat(" ", "seconds"),
        "cost_s": {part: _number(row[f"cost_{part}_s"]) for part in (*COST_PARTS, "total")},
        "warnings": row["warnings"],
        "curves": {name: _curve(curve) for name, curve in of_run.items()},
    }


def _curve(curve: Curve) -> list[list[Any]]:
    """Epochs and values: first, last and evenly between."""
    at = np.unique(np.linspace(0, len(curve.epochs) - 1, min(len(curve.epochs), CURVE_POINTS)).round().astype(int))
    return [curve.epochs[at].tolist(), [_number(v, CURVE_DIGITS) for v in curve.values[at].tolist()]]


def _failures(store: Store) -> Data:
    found = [f for run_id in store.failed_ids() if (f := store.failure(run_id))]
    found.sort(key=lambda f: (-f.at, f.run_id))
    told = []
    for f in found[:MOST_FAILURES]:
        log = "\n".join(f.details.strip().splitlines()[-LOG_LINES:])
        when = datetime.fromtimestamp(f.at).astimezone().isoformat(" ", "minutes")
        told.append({"run": f.run_id, "of": _of(store, f.run_id), "kind": f.kind, "cause": f.cause, "details": log,
                     "log": f.log, "host": f.host, "at": when})  # fmt: skip
    return {"failures": told, "failed": len(found)}


def _of(store: Store, run_id: str) -> str:
    """What a run without a record would have been."""
    try:
        science = store.read_science(run_id)
    except UserError:
        return ""
    teacher = f"{science['teacher']['model']} > " if science["teacher"] else ""
    dataset, method = science["dataset"]["name"], science["method"]["use"]
    return f"{dataset}, {teacher}{science['student']}, {method}, seed {science['seed']}"


def _figures(
    store: Store, contents: Sequence[Contents], finished: Mapping[str, datetime]
) -> tuple[tuple[SweepFigures, ...], str]:
    """Those of the sweeps that were last added to, and what is left out."""
    if find_spec("matplotlib") is None:
        return (), "None: they need matplotlib, pip install 'kd-harness[figures]'."
    newest = {c: max(at) for c in contents if (at := [finished[x.run_id] for x in c.cells if x.run_id in finished])}
    alike = [c for c in newest if _one_protocol(c)]
    order = sorted(alike, key=lambda c: (newest[c], c.name), reverse=True)
    shown, rest = order[:MOST_SWEEPS], len(order[MOST_SWEEPS:])
    drawn = [_drawn(store.root, c, frozenset(comparison.wanted_runs(c) & finished.keys())) for c in shown]
    notes = []
    if rest:
        notes.append(f"Drawn for the {len(shown)} sweeps last added to; {rest} more have tables in this store.")
    if mixed := sorted(c.name for c in newest.keys() - set(alike)):
        notes.append(f"Not drawn, as their lines are of unlike protocols: {', '.join(mixed)}.")
    return tuple(drawn), " ".join(notes)


def _one_protocol(contents: Contents) -> bool:
    try:
        protocols.check(contents.name, contents.cells, contents.recipe_changes, mix=False)
    except UserError:
        return False
    return True


@lru_cache(maxsize=4 * MOST_SWEEPS)  # a page that follows a store draws what has changed
def _drawn(root: Path, contents: Contents, having: frozenset[str]) -> SweepFigures:
    store = Store(root)
    compared, of_runs = next(comparison.load([contents], store)), curves.load(store, having)
    drawings = figures.drawings(compared, of_runs)
    pictures = (Picture(d.caption, render(d, "svg")["svg"], d.size[0] > COLUMN) for d in drawings)
    return SweepFigures(contents.name, tuple(pictures))


def _said(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _spread(spread: Spread | None) -> list[Any] | None:
    return None if spread is None else [_number(spread.mean), _number(spread.std), spread.n]


def _number(value: float | None, digits: int = 12) -> float | None:
    """So many significant digits; None for what JSON has no word for."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")

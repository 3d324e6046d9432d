"""Records and comparisons of them, without any training."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from harness.reporting import comparison
from harness.reporting.comparison import Comparison, Contents
from harness.spec import identity
from harness.spec.sweep_plan import Cell
from harness.store.schema import FIDELITY_COLUMNS, SCHEMA

SWEEP: dict[str, Any] = {
    "name": "small",
    "note": "a note with $5 & 100 % of <b>it_all</b>",
    "dataset": "digits",
    "recipe": "digits_quick",
    "methods": ["student", "kd", "fitnets"],
    "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4"}],
    "seeds": 3,
}


TEXTS: dict[str, str] = {}  # invented run id -> the text that it is the digest of


def invented_id(number: int) -> str:
    """Return the run id of a text that stands for a science."""
    run_id = identity.of_text(text := f"science {number}")
    TEXTS[run_id] = text
    return run_id


def row(run_id: str, last: float | None, best: float | None, **more: Any) -> dict[str, Any]:
    """Return a record. Columns that a test does not state hold values that no test looks for."""
    filler = {"string": "x", "double": 777.0, "int64": 7, "int32": 1, "bool": False}
    columns = {f.name: filler.get(str(f.type)) for f in SCHEMA}
    columns |= {"run_id": run_id, "status": "done", "last_top1": last, "best_top1": best, "curves": []}
    columns |= dict.fromkeys(FIDELITY_COLUMNS)
    columns |= {"started_at": datetime(2026, 1, 1, tzinfo=UTC), "finished_at": datetime(2026, 1, 2, tzinfo=UTC)}
    return {
        **columns,
        "teacher_top1": 90.0,
        "cost_total_s": 2.0,
        "train_size": 1442,
        "evaluated_on": "test",
        "evaluated_size": 355,
        "warnings": [],
        "retries": [],
        "versions": "{}",
        "science": TEXTS.get(run_id, "x"),
        "student_parameters": 7,
        "evaluated_parameters": 7,
        **more,
    }


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def contents(methods: tuple[str, ...], seeds: int, note: str = "") -> Contents:
    cells = [Cell("t", "s", m, seed, f"{m}-{seed}", None) for m in methods for seed in range(seeds)]
    return Contents("small", note, "digits", (20,), tuple(cells))


def compared(tops: dict[str, tuple[float, ...]], **changes: Any) -> Comparison:
    """Compare methods of one pair, given their last top-1 per seed."""
    cells = [Cell("t", "s", m, seed, f"{m}-{seed}", None) for m, values in tops.items() for seed in range(len(values))]
    rows = [row(f"{m}-{seed}", v, v) for m, values in tops.items() for seed, v in enumerate(values)]
    return comparison.compare(replace(contents((), 0), cells=tuple(cells), **changes), table(rows))

"""The comparison of a sweep: cells joined with their records, summed up over seeds."""

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from harness.errors import UserError
from harness.spec.expand import Cell, Plan
from harness.spec.identity import canonical
from harness.spec.schema import Recipe
from harness.store import files, records
from harness.store.store import Store

BASELINE, REFERENCE = "student", "kd"  # what differences are taken to
_METRICS = ["run_id", "status", "last_top1", "best_top1", "teacher_top1", "cost_total_s"]
_FACTS = [
    "warnings",
    "student_parameters",
    "evaluated_parameters",
    "train_size",
    "evaluated_on",
    "evaluated_size",
    "science",
]
_COLUMNS = [*_METRICS, *_FACTS]


@dataclass(frozen=True)
class Contents:
    """What a table is of: enough to rebuild it from records, and kept beside it."""

    name: str
    note: str
    dataset: str
    epochs: tuple[int, ...]
    cells: tuple[Cell, ...]
    recipe_changes: tuple[str, ...] = ()  # "teacher > student, method: lr 0.01": who was trained otherwise than most

    @classmethod
    def of(cls, name: str, plan: Plan) -> "Contents":
        runs, sweep = plan.runs, plan.sweep
        epochs = sorted({runs[c.run_id].science["recipe"]["epochs"] for c in plan.cells})
        return cls(name, sweep.note, sweep.dataset.name, tuple(epochs), tuple(plan.cells), _recipe_changes(plan))

    @classmethod
    def read(cls, folder: Path) -> "Contents":
        """Raises:
        UserError: there is no such table, or its description is damaged.
        """
        value: Any = files.read_json(folder / "contents.json")
        try:
            cells = tuple(Cell(**c) for c in value.pop("cells"))
            return cls(
                **{
                    **value,
                    "epochs": tuple(value["epochs"]),
                    "recipe_changes": tuple(value["recipe_changes"]),
                    "cells": cells,
                }
            )
        except (TypeError, AttributeError, KeyError, ValueError):
            raise UserError(f"{folder / 'contents.json'}: missing or damaged; run its sweep again") from None

    def write(self, folder: Path) -> None:
        files.replace_json(folder / "contents.json", asdict(self))


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over n values; std is None for fewer than two."""

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        values = list(values)
        if not values:
            return None
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Row:
    """One method on one pair. Accuracies are top-1 in %; differences are paired by seed, in points."""

    teacher: str
    student: str
    method: str
    last: Spread | None  # after the last epoch
    best: Spread | None  # at the best test epoch: an optimistic figure, for comparison with papers that print it
    to_baseline: Spread | None
    to_reference: Spread | None
    teacher_top1: float | None
    student_top1: float | None  # the undistilled student's mean
    cost_s: float | None  # compute-seconds per run
    warnings: tuple[tuple[str, int], ...]  # what the method says of its runs, and of how many
    parameters: tuple[int, int] | None  # of the student, and of the model that was evaluated
    missing: int
    diverged: int
    run_ids: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    contents: Contents
    rows: tuple[Row, ...]
    train_size: int | None
    evaluated_on: str | None
    evaluated_size: int | None
    # (teacher, student, method) -> the science of one of its runs, as JSON: they differ in the seed alone
    sciences: Mapping[tuple[str, str, str], str] = field(default_factory=dict)


def compare(contents: Contents, table: pa.Table) -> Comparison:
    """Sums up records over seeds."""
    by_run = {r["run_id"]: r for r in table.select(_COLUMNS).to_pylist()}
    teachers = {r["run_id"]: r["last_top1"] for r in by_run.values()}
    groups: dict[tuple[str, str], dict[str, list[Cell]]] = {}
    for cell in contents.cells:
        groups.setdefault((cell.teacher, cell.student), {}).setdefault(cell.method, []).append(cell)
    rows = []
    sciences = {}
    for (teacher, student), methods in groups.items():
        last = {m: _by_seed(cells, by_run, "last_top1") for m, cells in methods.items()}
        baseline = Spread.of(last.get(BASELINE, {}).values())
        measured = [by_run[c.run_id]["teacher_top1"] for cs in methods.values() for c in cs if c.run_id in by_run]
        measured += [teachers.get(c.teacher_run) for cs in methods.values() for c in cs if c.teacher_run]
        for method, cells in methods.items():
            found = [by_run[c.run_id] for c in cells if c.run_id in by_run]
            if found:
                sciences[(teacher, student, method)] = found[0]["science"]
            rows.append(
                Row(
                    teacher=teacher,
                    student=student,
                    method=method,
                    last=Spread.of(last[method].values()),
                    best=Spread.of(_by_seed(cells, by_run, "best_top1").values()),
                    to_baseline=_difference(last, method, BASELINE),
                    to_reference=_difference(last, method, REFERENCE),
                    teacher_top1=next((t for t in measured if t is not None), None),
                    student_top1=baseline.mean if baseline else None,
                    cost_s=statistics.fmean(r["cost_total_s"] for r in found) if found else None,
                    parameters=(found[0]["student_parameters"], found[0]["evaluated_parameters"]) if found else None,
                    warnings=tuple(Counter(text for r in found for text in r["warnings"]).items()),
                    missing=len(cells) - len(found),
                    diverged=sum(r["status"] == "diverged" for r in found),
                    run_ids=tuple(c.run_id for c in cells),
                )
            )
    first: dict[str, Any] = next(iter(by_run.values()), {})
    train_size, evaluated_on, evaluated_size = (first.get(k) for k in ("train_size", "evaluated_on", "evaluated_size"))
    return Comparison(contents, tuple(rows), train_size, evaluated_on, evaluated_size, sciences)


def cell_table(contents: Contents, table: pa.Table) -> pa.Table:
    """The records of a comparison with the sweep's names for them: one row per cell that has a record."""
    at = {run_id: i for i, run_id in enumerate(table.column("run_id").to_pylist())}
    cells = [c for c in contents.cells if c.run_id in at]
    names = {
        "sweep": [contents.name for _ in cells],
        "pair_teacher": [c.teacher for c in cells],
        "pair_student": [c.student for c in cells],
        "entry": [c.method for c in cells],
    }
    rows = table.take(pa.array([at[c.run_id] for c in cells], pa.int64()))
    for i, (name, values) in enumerate(names.items()):
        rows = rows.add_column(i, pa.field(name, pa.string()), pa.array(values, pa.string()))
    return rows


def wanted_runs(contents: Contents) -> set[str]:
    """Every run a table reads: its cells' and their teachers'."""
    return {c.run_id for c in contents.cells} | {c.teacher_run for c in contents.cells if c.teacher_run}


def load(contents: Contents, store: Store, columns: Sequence[str] | None = None) -> Comparison:
    """The comparison as the store has it now."""
    return compare(contents, records.read(store, wanted_runs(contents), list(columns or _COLUMNS)))


def as_dicts(comparison: Comparison) -> list[dict[str, Any]]:
    """Rows as plain data, for ``--json``."""
    return [asdict(r) for r in comparison.rows]


def _recipe_changes(plan: Plan) -> tuple[str, ...]:
    """Lines of a table whose recipe is not the one that most of its lines have, and in what."""
    first = {(c.teacher, c.student, c.method): c.run_id for c in plan.cells}
    recipes = {line: Recipe.whole(plan.runs[run_id].science["recipe"]) for line, run_id in first.items()}
    texts = {line: canonical(recipe) for line, recipe in recipes.items()}
    usual = json.loads(Counter(texts.values()).most_common(1)[0][0])
    changes = []
    for (teacher, student, method), recipe in recipes.items():
        if other := [f"{key} {value}" for key, value in recipe.items() if value != usual[key]]:
            changes.append(f"{teacher} > {student}, {method}: {', '.join(other)}")
    return tuple(changes)


def _by_seed(cells: list[Cell], by_run: dict[str, Any], column: str) -> dict[int, float]:
    found = ((c.seed, by_run[c.run_id][column]) for c in cells if c.run_id in by_run)
    return {seed: value for seed, value in found if value is not None}


def _difference(last: dict[str, dict[int, float]], method: str, other: str) -> Spread | None:
    if method == other or other not in last:
        return None
    return Spread.of(v - last[other][seed] for seed, v in last[method].items() if seed in last[other])

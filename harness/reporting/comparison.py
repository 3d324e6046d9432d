"""The comparison of a sweep: cells joined with their records, summed up over seeds."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from harness.errors import UserError, unknown
from harness.reporting import statistics
from harness.reporting.protocol_guard import RecipeChange, recipe_changes
from harness.reporting.ranking import Ranking, ranking
from harness.reporting.statistics import Difference, Interval, Spread
from harness.spec import datasets
from harness.spec.expand import Cell, Plan
from harness.spec.schema import Teachers
from harness.spec.science import Science
from harness.spec.tasks import CATALOG as TASKS
from harness.spec.tasks import METRICS, TaskInfo
from harness.store import files, records
from harness.store.store import CONTENTS, Store

BASELINE, REFERENCE = "student", "kd"  # what differences are taken to, unless told otherwise
_NUMBERS = (  # of every run
    "status",
    "cost_total_s",
    *(f"{what}_{m}" for task in TASKS.values() for what in ("last", "teacher") for m in task.printed),
    *(f"best_{task.score}" for task in TASKS.values()),
)
_SIZES = ("student_parameters", "evaluated_parameters")  # of a line's first run, as they do not change with the seed
_SETS = ("train_size", "evaluated_on", "evaluated_size")  # of a sweep's first run
_COLUMNS = ("run_id", *_NUMBERS, "warnings", "science", *_SIZES, *_SETS)


@dataclass(frozen=True)
class Contents:
    """What a table is of: enough to rebuild it from records, and kept beside it."""

    name: str
    note: str
    dataset: str
    epochs: tuple[int, ...]
    cells: tuple[Cell, ...]
    recipe_changes: tuple[RecipeChange, ...] = ()
    added: tuple[str, ...] = ()  # "teacher > student, method: seeds 3, 4": what the sweep file does not list
    baseline: str = BASELINE  # the method that differences are tested against
    margin: float = statistics.MARGIN  # points within which a published number counts as reproduced
    file: str = "FILE"  # the sweep file, as it was given
    sets: tuple[str, ...] = ()  # ``key.path=value``: what --set changed in it
    teachers_alone: tuple[str, ...] = ()  # further ones, with which it trains a pair's student as it does teachers

    @property
    def task(self) -> TaskInfo:
        """Which says what is compared: its score."""
        return datasets.task_of(self.dataset)

    @classmethod
    def of(cls, name: str, plan: Plan) -> "Contents":
        runs, sweep = plan.runs, plan.sweep
        epochs = sorted({runs[c.run_id].science.recipe.epochs for c in plan.cells})
        return cls(
            name,
            sweep.note,
            sweep.dataset.name,
            tuple(epochs),
            tuple(plan.cells),
            recipe_changes(plan),
            _added(plan),
            file=plan.document.source,
            sets=plan.document.sets,
            teachers_alone=_teachers_alone(sweep.teachers),
        )

    def asked(self, baseline: str | None, margin: float | None) -> "Contents":
        """These contents with another baseline or margin; None leaves it.

        Raises:
            UserError: no such method here.
        """
        methods = {c.method for c in self.cells}
        if baseline is not None and baseline not in methods:
            raise UserError(f"{self.name}: --baseline: {unknown('method of this table', baseline, methods)}")
        return replace(
            self,
            baseline=self.baseline if baseline is None else baseline,
            margin=self.margin if margin is None else margin,
        )

    @classmethod
    def read(cls, folder: Path) -> "Contents":
        """Raises:
        UserError: there is no such table, or its description is damaged.
        """
        value: Any = files.read_json(folder / CONTENTS)
        try:
            cells = tuple(Cell(**c) for c in value.pop("cells"))
            return cls(
                **{
                    **value,
                    "epochs": tuple(value["epochs"]),
                    "recipe_changes": tuple(RecipeChange(**c) for c in value["recipe_changes"]),
                    **{key: tuple(value.get(key, ())) for key in ("sets", "teachers_alone", "added")},
                    "cells": cells,
                }
            )
        except (TypeError, AttributeError, KeyError, ValueError):
            raise UserError(f"{folder / CONTENTS}: missing or damaged; run its sweep again") from None

    def write(self, folder: Path) -> None:
        files.replace_json(folder / CONTENTS, asdict(self))


@dataclass(frozen=True)
class Row:
    """One method on one pair, by its task's score in % (top-1, say); differences are paired by seed, in points."""

    teacher: str
    student: str
    method: str
    last: Spread | None  # after the last epoch
    best: Spread | None  # at the best test epoch: an optimistic figure, for comparison with papers that print it
    to_baseline: Spread | None
    to_reference: Spread | None
    teacher_score: float | None
    student_score: float | None  # the undistilled student's mean
    cost_s: float | None  # compute-seconds per run
    warnings: tuple[tuple[str, int], ...]  # what the method says of its runs, and of how many
    parameters: tuple[int, int] | None  # of the student, and of the model that was evaluated
    missing: int
    diverged: int
    run_ids: tuple[str, ...]
    by_seed: Mapping[int, float] = field(default_factory=dict)  # after the last epoch
    last_interval: Interval | None = None
    tested: Difference | None = None  # of ``to_baseline``
    # Metric -> what tables print beside the score: after the last epoch, and the teacher's
    last_others: Mapping[str, Spread | None] = field(default_factory=dict)
    teacher_others: Mapping[str, float | None] = field(default_factory=dict)

    def last_of(self, metric: str) -> Spread | None:
        """Of any metric that the task's tables print."""
        return self.last_others[metric] if metric in self.last_others else self.last

    def teacher_of(self, metric: str) -> float | None:
        return self.teacher_others[metric] if metric in self.teacher_others else self.teacher_score


@dataclass(frozen=True)
class Comparison:
    contents: Contents
    rows: tuple[Row, ...]
    train_size: int | None
    evaluated_on: str | None
    evaluated_size: int | None
    # (teacher, student, method) -> the text of one of its runs' science, see ``science``
    sciences: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    ranking: Ranking | None = None

    def science(self, row: Row) -> Science | None:
        """Return the science of one of a row's runs, which differ in the seed only; None: none has a record."""
        text = self.sciences.get((row.teacher, row.student, row.method))
        return None if text is None else Science.from_text(text)


def compare(contents: Contents, table: pa.Table) -> Comparison:
    """Sums up records over seeds."""
    score, *others = contents.task.printed
    rows = {run_id: i for i, run_id in enumerate(table.column("run_id").to_pylist())}
    column = {name: table.column(name).to_pylist() for name in _NUMBERS}
    warned = {i: table.column("warnings")[i].as_py() for i in _not_empty(table.column("warnings"))}
    groups: dict[tuple[str, str], dict[str, list[Cell]]] = {}
    for cell in contents.cells:
        groups.setdefault((cell.teacher, cell.student), {}).setdefault(cell.method, []).append(cell)
    lines = []
    sciences = {}
    scores = {}
    for (teacher, student), methods in groups.items():
        found = {m: [(c.seed, rows[c.run_id]) for c in cells if c.run_id in rows] for m, cells in methods.items()}
        last = {m: _by_seed(of, column[f"last_{score}"]) for m, of in found.items()}
        scores[(teacher, student)] = {m: list(values.values()) for m, values in last.items()}
        alone = Spread.of(last.get(BASELINE, {}).values())
        to_baseline = [_difference(last, m, contents.baseline) for m in methods]
        tests = statistics.differences(to_baseline)
        at_teacher = [rows[c.teacher_run] for cells in methods.values() for c in cells if c.teacher_run in rows]
        measured = {
            metric: _first(
                [column[f"teacher_{metric}"][i] for of in found.values() for _, i in of]
                + [column[f"last_{metric}"][i] for i in at_teacher]
            )
            for metric in contents.task.printed
        }
        for (method, cells), difference, tested in zip(methods.items(), to_baseline, tests, strict=True):
            at = [i for _, i in found[method]]
            spread = Spread.of(last[method].values())
            if at:
                sciences[(teacher, student, method)] = table.column("science")[at[0]].as_py()
            lines.append(
                Row(
                    teacher=teacher,
                    student=student,
                    method=method,
                    last=spread,
                    best=Spread.of(_by_seed(found[method], column[f"best_{score}"]).values()),
                    to_baseline=difference,
                    to_reference=_difference(last, method, REFERENCE),
                    teacher_score=measured[score],
                    student_score=alone.mean if alone else None,
                    cost_s=fmean(column["cost_total_s"][i] for i in at) if at else None,
                    parameters=tuple(table.column(name)[at[0]].as_py() for name in _SIZES) if at else None,
                    warnings=tuple(Counter(text for i in at for text in warned.get(i, ())).items()),
                    missing=len(cells) - len(at),
                    diverged=sum(column["status"][i] == "diverged" for i in at),
                    run_ids=tuple(c.run_id for c in cells),
                    by_seed=last[method],
                    last_interval=statistics.interval(spread),
                    tested=tested,
                    last_others={m: Spread.of(_by_seed(found[method], column[f"last_{m}"]).values()) for m in others},
                    teacher_others={m: measured[m] for m in others},
                )
            )
    sets: dict[str, Any] = {name: table.column(name)[0].as_py() if len(table) else None for name in _SETS}
    ranks = ranking(scores, contents.baseline)
    return Comparison(contents, tuple(lines), **sets, sciences=sciences, ranking=ranks)


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
    of_others = set(METRICS) - set(contents.task.metrics)
    rows = rows.drop_columns([f"{what}_{metric}" for what in ("last", "best", "teacher") for metric in of_others])
    for i, (name, values) in enumerate(names.items()):
        rows = rows.add_column(i, pa.field(name, pa.string()), pa.array(values, pa.string()))
    return rows


def wanted_runs(contents: Contents) -> set[str]:
    """Every run a table reads: its cells' and their teachers'."""
    return {c.run_id for c in contents.cells} | {c.teacher_run for c in contents.cells if c.teacher_run}


def load_comparisons(contents: Sequence[Contents], store: Store) -> Iterator[Comparison]:
    """The comparisons as the store has them now, each record read once."""
    wanted = [wanted_runs(content) for content in contents]
    table = records.read_records(store, frozenset().union(*wanted), _COLUMNS)
    at = {run_id: i for i, run_id in enumerate(table.column("run_id").to_pylist())}
    for content, run_ids in zip(contents, wanted, strict=True):
        yield compare(content, table.take(pa.array(sorted(at[k] for k in run_ids if k in at), pa.int64())))


def comparison_dict(comparison: Comparison) -> dict[str, Any]:
    """What was compared, rows and ranking as plain data, for ``--json``."""
    return {
        "baseline": comparison.contents.baseline,
        "margin": comparison.contents.margin,
        "rows": [_as_dict(r, comparison.contents.task) for r in comparison.rows],
        "ranking": asdict(comparison.ranking) if comparison.ranking else None,
    }


def _as_dict(row: Row, task: TaskInfo) -> dict[str, Any]:
    """With the metrics' names."""
    found = asdict(row)
    others = {what: found.pop(f"{what}_others") for what in ("last", "teacher")}
    found |= {f"{what}_{task.score}": found.pop(f"{what}_score") for what in ("teacher", "student")}
    return found | {f"{what}_{metric}": value for what, of in others.items() for metric, value in of.items()}


def _teachers_alone(teachers: Teachers) -> tuple[str, ...]:
    recipe = () if teachers.recipe is None else (f"recipe={json.dumps(teachers.recipe)}",)
    return (f"methods=[{BASELINE}]", f"seeds=[{teachers.seed}]", *recipe)


def _added(plan: Plan) -> tuple[str, ...]:
    """Lines of a table with more seeds than the sweep file lists, and which."""
    seeds: dict[str, list[int]] = {}
    for cell in plan.cells:
        if cell.seed not in plan.sweep.seeds:
            seeds.setdefault(f"{cell.teacher} > {cell.student}, {cell.method}", []).append(cell.seed)
    return tuple(f"{line}: seeds {', '.join(map(str, found))}" for line, found in seeds.items())


def _by_seed(found: list[tuple[int, int]], values: list[float | None]) -> dict[int, float]:
    """``found``: seeds with the rows of their runs."""
    return {seed: value for seed, i in found if (value := values[i]) is not None}


def _first(values: Iterable[float | None]) -> float | None:
    return next((v for v in values if v is not None), None)


def _not_empty(lists: pa.ChunkedArray) -> list[int]:
    return pc.indices_nonzero(pc.fill_null(pc.list_value_length(lists), 0)).to_pylist()


def _difference(last: dict[str, dict[int, float]], method: str, other: str) -> Spread | None:
    if method == other or other not in last:
        return None
    return Spread.of(v - last[other][seed] for seed, v in last[method].items() if seed in last[other])

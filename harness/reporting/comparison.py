"""The comparison of a sweep: its cells with their records, aggregated over seeds."""

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
from harness.reporting.aggregation import SeedRuns, first
from harness.reporting.protocol_guard import RecipeChange, recipe_changes
from harness.reporting.ranking import Ranking, ranking
from harness.reporting.statistics import Difference, Interval, Spread
from harness.reporting.tables import digests
from harness.spec import datasets
from harness.spec.idle_settings import idle_settings
from harness.spec.lines import Line, LinePart, PairNames, grouped
from harness.spec.schema import Name, Teachers
from harness.spec.science import Science
from harness.spec.sweep_plan import Cell, Plan
from harness.spec.tasks import CATALOG as TASKS
from harness.spec.tasks import METRICS, TaskInfo
from harness.store import files, json_files, record_stream
from harness.store.schema import FIDELITY_COLUMNS, SCHEMA
from harness.store.store import CONTENTS, Store

BASELINE, REFERENCE = "student", "kd"  # the methods that differences are taken from, unless another is chosen
_NUMBERS = (  # read for every run
    "status",
    "cost_total_s",
    *(f"{what}_{m}" for task in TASKS.values() for what in ("last", "teacher") for m in task.printed),
    *(f"best_{task.score}" for task in TASKS.values()),
    *FIDELITY_COLUMNS,
)
_SIZES = ("student_parameters", "evaluated_parameters")  # of a line's first run, as they do not change with the seed
_SETS = ("train_size", "evaluated_on", "evaluated_size")  # of a sweep's first run
_COLUMNS = ("run_id", *_NUMBERS, "warnings", "retries", "science", *_SIZES, *_SETS)  # of the records


@dataclass(frozen=True)
class Contents:
    """The contents of a table: enough to rebuild it from records. They are saved in the table's folder."""

    __pydantic_config__ = json_files.CLOSED
    name: Name  # as folders have it
    note: str
    dataset: str
    epochs: tuple[int, ...]
    cells: tuple[Cell, ...]
    recipe_changes: tuple[RecipeChange, ...] = ()
    added: tuple[str, ...] = ()  # "teacher > student, method: seeds 3, 4": seeds that the sweep file does not list
    baseline: str = BASELINE  # the method that differences are tested against
    margin: float = statistics.MARGIN  # points within which a published number counts as reproduced
    file: str = "FILE"  # the sweep file, as the command named it
    sets: tuple[str, ...] = ()  # ``key.path=value``: changes by --set
    teachers_alone: tuple[str, ...] = ()  # further changes, which make it train a pair's student as its teachers
    dataset_label: str = ""  # the name that people gave to a prepared dataset
    idle_settings: tuple[str, ...] = ()  # sentences on settings without effect
    tuning: tuple[str, ...] = ()  # sentences on the tuning that chose the methods' settings

    @property
    def task(self) -> TaskInfo:
        """The task, whose score is compared."""
        return datasets.task_of(self.dataset)

    @property
    def shown_dataset(self) -> str:
        """The dataset's name for readers."""
        return self.dataset_label or self.dataset

    @classmethod
    def of(cls, name: str, plan: Plan) -> "Contents":
        runs, sweep = plan.runs, plan.sweep
        epochs = sorted({runs[c.run_id].science.recipe.last_epoch for c in plan.cells})
        return cls(
            name,
            sweep.note,
            sweep.dataset.reference,
            tuple(epochs),
            tuple(plan.cells),
            recipe_changes(plan),
            _added(plan),
            file=plan.document.source,
            sets=plan.document.sets,
            teachers_alone=_teachers_alone(sweep.teachers),
            dataset_label=plan.dataset_label,
            idle_settings=idle_settings(plan),
        )

    def with_options(self, baseline: str | None, margin: float | None) -> "Contents":
        """Return these contents with another baseline or margin; None keeps the present one.

        Raises:
            UserError: the table has no such method.
        """
        methods = {c.method for c in self.cells}
        if baseline is not None and baseline not in methods:
            raise UserError(f"{self.name}: --baseline: {unknown('method of this table', baseline, methods)}")
        options: dict[str, Any] = {"baseline": baseline, "margin": margin}
        return replace(self, **{name: value for name, value in options.items() if value is not None})

    def with_tuning_of(self, folder: Path) -> "Contents":
        """Return these contents with the remarks on the tuning of the table in a folder, if that has the same runs."""
        try:
            earlier = Contents.read(folder)
        except UserError:  # no table yet, or one that will be replaced
            return self
        return replace(self, tuning=earlier.tuning) if set(earlier.cells) <= set(self.cells) else self

    @classmethod
    def read(cls, folder: Path) -> "Contents":
        """Read the contents of the table in a folder.

        Raises:
            UserError: there is no such table, or its contents are unreadable or damaged.
        """
        path = folder / CONTENTS
        try:
            contents = json_files.read_checked(cls, path)
            digests.check_file(path)
            return contents
        except FileNotFoundError:
            raise UserError(f"{path}: missing; run its sweep again to write it again") from None

    def lines(self) -> dict[Line, list[Cell]]:
        """Return the cells of each line."""
        return grouped(self.cells, lambda cell: cell.line)

    def run_ids(self) -> set[str]:
        """Return every run that the table reads: its cells' and their teachers'."""
        return {c.run_id for c in self.cells} | {k for c in self.cells for k in c.needed_runs}

    def write(self, folder: Path) -> None:
        # Left out while empty, so that the files of tables stay the same.
        younger = ("dataset_label", "idle_settings", "tuning")
        content = {k: v for k, v in asdict(self).items() if v or k not in younger}
        files.replace_json(folder / CONTENTS, {**content, "cells": [cell.to_json() for cell in self.cells]})


@dataclass(frozen=True)
class Row(LinePart):
    """One method on one pair, by its task's score in % (top-1, say); differences are paired by seed, in points."""

    last: Spread | None  # after the last epoch
    best: Spread | None  # at the best test epoch: an optimistic figure, for comparison with papers that print it
    to_baseline: Spread | None
    to_reference: Spread | None
    teacher_score: float | None
    student_score: float | None  # the undistilled student's mean
    cost_s: float | None  # compute-seconds per run
    warnings: tuple[tuple[str, int], ...]  # the methods' warnings, each with its number of runs
    parameters: tuple[int, int] | None  # of the student, and of the model that was evaluated
    missing: int
    diverged: int
    run_ids: tuple[str, ...]
    by_seed: Mapping[int, float] = field(default_factory=dict)  # after the last epoch
    last_interval: Interval | None = None  # within 0 and 100
    tested: Difference | None = None  # of ``to_baseline``
    seeds_to_tell: int | None = None  # what the test would need that finds no difference; None: or more than counted
    # By metric, the score included: this row's after the last epoch, and the teacher's
    last_metrics: Mapping[str, Spread | None] = field(default_factory=dict)
    teacher_metrics: Mapping[str, float | None] = field(default_factory=dict)
    fidelity: Mapping[str, Spread | None] = field(default_factory=dict)  # by column of the records; {}: none has any


@dataclass(frozen=True)
class Comparison:
    """The rows of a table, and the facts that hold for all of them."""

    contents: Contents
    rows: tuple[Row, ...]
    train_size: int | None
    evaluated_on: str | None
    evaluated_size: int | None
    sciences: Mapping[Line, str] = field(default_factory=dict)  # the text of one run's science, see ``science``
    ranking: Ranking | None = None
    reference: str | None = None  # the entry that ``to_reference`` is the difference to
    retries: Mapping[str, int] = field(default_factory=dict)  # what runs were retried with -> the number of runs

    @property
    def has_fidelity(self) -> bool:
        """True if any record has it: those of an earlier harness and of detectors do not."""
        return any(row.fidelity for row in self.rows)

    @property
    def is_of_one_seed(self) -> bool:
        """True if there is nothing to take a mean over."""
        return all(len(row.run_ids) == 1 for row in self.rows)

    def pairs(self) -> dict[PairNames, list[Row]]:
        """Return the rows of each pair."""
        return grouped(self.rows, lambda row: row.pair)

    def science(self, row: Row) -> Science | None:
        """Return the science of one of a row's runs, which differ in the seed only; None: none has a record."""
        text = self.sciences.get(row.line)
        return None if text is None else Science.from_text(text)


def compare(contents: Contents, table: pa.Table) -> Comparison:
    """Aggregate the records of a comparison's runs over seeds."""
    position, taken, columns = _positions(table), list[int](), dict[str, list[Any]]()

    def with_record(run_ids: Iterable[tuple[int, str | None]]) -> SeedRuns:
        pairs = [(seed, i) for seed, run_id in run_ids if (i := position.get(run_id or "")) is not None]
        start = len(taken)
        taken.extend(i for _, i in pairs)
        return SeedRuns(columns, range(start, len(taken)), [seed for seed, _ in pairs])

    lines = contents.lines()
    pairs = grouped(lines, lambda line: line.pair)
    runs = {line: with_record((c.seed, c.run_id) for c in cells) for line, cells in lines.items()}
    texts = table.column("science")
    of_line = {line: (texts[taken[i]].as_py() for i in own.rows) for line, own in runs.items()}
    sciences = {line: text for line, of_runs in of_line.items() if (text := next(filter(None, of_runs), None))}
    teachers = {
        pair: with_record({c.teacher_run: (c.seed, c.teacher_run) for line in of_pair for c in lines[line]}.values())
        for pair, of_pair in pairs.items()
    }
    # Taken by line before the conversion to Python, so that objects used together lie together in memory.
    columns |= _by_run(table.select((*_NUMBERS, *_SIZES, "warnings")).take(pa.array(taken, pa.int64())))
    reference = _reference(sciences, lines)
    rows: list[Row] = []
    for pair, of_pair in pairs.items():
        rows += _pair_rows(contents, {line: lines[line] for line in of_pair}, runs, teachers[pair], reference)
    sets: dict[str, Any] = {name: table.column(name)[0].as_py() if len(table) else None for name in _SETS}
    retries = Counter(pc.list_flatten(table.column("retries")).to_pylist())
    comparison = Comparison(contents, tuple(rows), **sets, sciences=sciences, reference=reference, retries=retries)
    scores = {p: {row.method: list(row.by_seed.values()) for row in of_p} for p, of_p in comparison.pairs().items()}
    return replace(comparison, ranking=ranking(scores, contents.baseline))


def _reference(sciences: Mapping[Line, str], lines: Iterable[Line]) -> str | None:
    """Return the entry of KD: of several that use it, the one with its name; None where that leaves none or several."""
    uses_kd = f'"use":"{REFERENCE}"'
    entries = {line.method for line, text in sciences.items() if uses_kd in text}
    if not entries or REFERENCE in entries:  # no record tells, or its own name does
        return REFERENCE if any(line.method == REFERENCE for line in lines) else None
    return entries.pop() if len(entries) == 1 else None


def _by_run(table: pa.Table) -> dict[str, list[Any]]:
    columns = {name: table.column(name).to_pylist() for name in (*_NUMBERS, *_SIZES)}
    warnings = table.column("warnings")
    columns["warnings"] = [()] * len(table)
    for i in pc.indices_nonzero(pc.fill_null(pc.list_value_length(warnings), 0)).to_pylist():
        columns["warnings"][i] = warnings[i].as_py()
    return columns


def _pair_rows(
    contents: Contents,
    lines: Mapping[Line, Sequence[Cell]],
    runs: Mapping[Line, SeedRuns],
    teacher: SeedRuns,
    reference: str | None,
) -> Iterator[Row]:
    """Yield the rows of a pair. ``teacher``: the runs of this store that train its teacher."""
    score, metrics = contents.task.score, contents.task.printed
    scores = {line.method: runs[line].by_seed(f"last_{score}") for line in lines}
    student = Spread.of(scores.get(BASELINE, {}).values())
    teacher_scores = {
        metric: first([*(runs[line].first(f"teacher_{metric}") for line in lines), teacher.first(f"last_{metric}")])
        for metric in metrics
    }
    to_baseline = [_difference(scores, method, contents.baseline) for method in scores]
    tests = statistics.differences(to_baseline)
    family = sum(test is not None for test in tests)
    for (line, cells), difference, tested in zip(lines.items(), to_baseline, tests, strict=True):
        own, last = runs[line], Spread.of(scores[line.method].values())
        yield Row(
            *line,
            last=last,
            best=own.spread(f"best_{score}"),
            to_baseline=difference,
            to_reference=_difference(scores, line.method, reference) if reference else None,
            teacher_score=teacher_scores[score],
            student_score=student.mean if student else None,
            cost_s=fmean(own.values("cost_total_s")) if own.rows else None,
            warnings=tuple(Counter(text for texts in own.values("warnings") for text in texts).items()),
            parameters=tuple(own.values(name)[0] for name in _SIZES) if own.rows else None,
            missing=len(cells) - len(own.rows),
            diverged=own.diverged,
            run_ids=tuple(cell.run_id for cell in cells),
            by_seed=scores[line.method],
            last_interval=statistics.percent_interval(last),
            tested=tested and replace(tested, interval=statistics.shown_interval(difference)),
            seeds_to_tell=_seeds_to_tell(difference, tested, family),
            last_metrics={metric: own.spread(f"last_{metric}") for metric in metrics},
            teacher_metrics=teacher_scores,
            fidelity=_fidelity(own),
        )


def _seeds_to_tell(difference: Spread | None, tested: Difference | None, family: int) -> int | None:
    """Return the seeds in all that tell a difference from 0 where these do not. ``family``: the pair's tests."""
    if tested is None or tested.p_holm < statistics.ERROR:
        return None
    return statistics.seeds_needed(difference, statistics.ERROR / family)


def _fidelity(runs: SeedRuns) -> dict[str, Spread | None]:
    spreads = {name: runs.spread(name) for name in FIDELITY_COLUMNS}
    return spreads if any(spreads.values()) else {}


def cell_table(contents: Contents, table: pa.Table) -> pa.Table:
    """Return the records of a comparison under the sweep's names: one row per cell that has a record."""
    position = _positions(table)
    cells = [c for c in contents.cells if c.run_id in position]
    return name_rows(contents, cells, table.take(pa.array([position[c.run_id] for c in cells], pa.int64())))


def name_rows(contents: Contents, cells: Sequence[Cell], rows: pa.Table, without: Sequence[str] = ()) -> pa.Table:
    """Return the records of cells, in their order, with the sweep's names before them and ``without`` some columns."""
    names = {
        "sweep": [contents.name for _ in cells],
        "pair_teacher": [c.teacher for c in cells],
        "pair_student": [c.student for c in cells],
        "entry": [c.method for c in cells],
    }
    foreign = set(METRICS) - set(contents.task.metrics)
    rows = rows.drop_columns([f"{what}_{m}" for what in ("last", "best", "teacher") for m in foreign] + [*without])
    for i, (name, values) in enumerate(names.items()):
        rows = rows.add_column(i, pa.field(name, pa.string()), pa.array(values, pa.string()))
    return rows


def load_comparisons(contents: Sequence[Contents], store: Store) -> Iterator[Comparison]:
    """Yield the comparisons as the store has them now. Each record is read once."""
    table = read_compared(contents, store)
    position = _positions(table)
    for content in contents:
        rows = sorted(position[run_id] for run_id in content.run_ids() if run_id in position)
        yield compare(content, table.take(pa.array(rows, pa.int64())))


def read_compared(contents: Iterable[Contents], store: Store) -> pa.Table:
    """Return what comparisons need of their records, ordered by run_id.

    Only one run of each line has its science: the texts of 100,000 are large.
    """
    done, run_ids, with_science = store.done_ids(), set[str](), list[str]()
    for content in contents:
        run_ids |= content.run_ids()
        for cells in content.lines().values():
            with_science += [cell.run_id for cell in cells if cell.run_id in done][:1]
    tables, at = [SCHEMA.empty_table().select(_COLUMNS)], _COLUMNS.index("science")
    for table in record_stream.stream_records(store, run_ids & done, _COLUMNS):  # not what is recorded meanwhile
        kept = pc.is_in(table.column("run_id"), pa.array(with_science, pa.string()))
        texts = pc.if_else(kept, table.column("science"), pa.scalar(None, pa.string()))
        tables.append(table.set_column(at, table.schema.field(at), texts))
    rows = pa.concat_tables(tables).combine_chunks()
    return rows.take(pc.sort_indices(rows.column("run_id")))


def _positions(table: pa.Table) -> dict[str, int]:
    return {run_id: i for i, run_id in enumerate(table.column("run_id").to_pylist())}


def comparison_dict(comparison: Comparison) -> dict[str, Any]:
    """Return baseline, margin, reference, rows and ranking as plain data, for ``--json``."""
    return {
        "baseline": comparison.contents.baseline,
        "margin": comparison.contents.margin,
        "reference": comparison.reference,
        "rows": [_as_dict(r, comparison.contents.task) for r in comparison.rows],
        "ranking": asdict(comparison.ranking) if comparison.ranking else None,
    }


def _as_dict(row: Row, task: TaskInfo) -> dict[str, Any]:
    """Return a row whose keys name the task's metrics."""
    data = asdict(row)
    metrics = {what: data.pop(f"{what}_metrics") for what in ("last", "teacher")}
    data |= {f"{what}_{task.score}": data.pop(f"{what}_score") for what in ("teacher", "student")}
    return data | {f"{what}_{m}": values[m] for what, values in metrics.items() for m in task.printed[1:]}


def _teachers_alone(teachers: Teachers) -> tuple[str, ...]:
    recipe = () if teachers.recipe is None else (f"recipe={json.dumps(teachers.recipe)}",)
    return (f"methods=[{BASELINE}]", f"seeds=[{teachers.seed}]", *recipe)


def _added(plan: Plan) -> tuple[str, ...]:
    """Return the lines with more seeds than the sweep file lists, and these seeds."""
    added = grouped((c for c in plan.cells if c.seed not in plan.sweep.seeds), lambda cell: cell.line)
    return tuple(f"{line}: seeds {', '.join(str(c.seed) for c in cells)}" for line, cells in added.items())


def _difference(scores: Mapping[str, Mapping[int, float]], method: str, other: str) -> Spread | None:
    return None if method == other else Spread.paired(scores[method], scores.get(other, {}))

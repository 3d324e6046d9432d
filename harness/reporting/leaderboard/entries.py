"""The leaderboard's entries: records whose science differs only in the seed, aggregated.

Two entries are compared (rank, gain, gain per hour) when dataset, recipe, evaluation, student and teacher are the same.
"""

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness.hardware import is_gpu
from harness.phrases import plural
from harness.reporting.aggregation import SeedRuns
from harness.reporting.comparison import BASELINE, REFERENCE, Spread
from harness.reporting.published.table import recipe_name
from harness.spec import datasets, methods
from harness.spec.identity import canonical
from harness.spec.lines import grouped
from harness.spec.science import Given, MethodSettings, Science, Trained, as_json, distinct_sciences
from harness.spec.tasks import CATALOG, TaskInfo

_SCORES = [f"{what}_{task.score}" for task in CATALOG.values() for what in ("last", "best", "teacher")]
_BY_RUN = ("run_id", "seed", "status", *_SCORES, "cost_total_s", "hardware", "processes", "threads")
_BY_LINE = ("dataset", "train_size", "evaluated_on", "evaluated_size")  # the same for all runs of an entry
COLUMNS = (*_BY_RUN, *_BY_LINE, "science", "warnings", "finished_at", "attempts")  # of the records
# Of KD's cost, and in hours: the least by which a run must cost more for a gain per hour. Less is noise of timing, and
# the gain per hour of runs of seconds says nothing of an hour.
_LEAST_EXTRA, _LEAST_EXTRA_HOURS = 0.1, 0.1
_EVALUATED_ON = {"test": "test images", "validation": "held-out images", "train": "of the training images evaluated on"}


@dataclass(frozen=True)
class Protocol:
    """The conditions under which two scores of one pair are comparable."""

    id: str
    dataset: str
    label: str
    held_out: bool  # evaluated on training images that were held out, not on the test set

    @property
    def task(self) -> TaskInfo:
        """The dataset's task, which names the score."""
        return datasets.task_of(self.dataset)


@dataclass(frozen=True)
class Cost:
    """The mean cost of a run."""

    hours: float
    unit: str  # GPU-h; or CPU-h, of one core each
    hardware: str


@dataclass(frozen=True)
class LeaderboardEntry:
    """One method with its settings on one pair under one protocol. Scores are in %, differences in points."""

    id: str
    protocol: Protocol
    teacher_key: str  # of a given teacher its ``weights_id``, or the run of a trained one
    settings: Mapping[str, Any]  # without those at the method's defaults
    science: Science  # of one of its runs
    sweeps: tuple[str, ...]  # "sweep: entry", where a table has these runs
    run_ids: tuple[str, ...]  # by seed
    by_seed: Mapping[int, float]  # after the last epoch
    last: Spread | None
    best: Spread | None  # at the best test epoch
    teacher_score: float | None
    cost: Cost | None
    diverged: int
    warnings: int  # runs with any
    newest: int  # when its last run finished, in microseconds since 1970
    teaches: bool = False  # its runs trained teachers, and no table has them as students
    rank: int | None = None
    standing: int | None = None  # 1 above, 0 equal to, -1 below the student trained alone; None without its score
    to_baseline: Spread | None = None
    to_reference: Spread | None = None
    per_hour: float | None = None  # points gained over KD per hour that a run costs more than KD's, where that is much


def leaderboard_entries(
    table: pa.Table, sweeps: Mapping[str, Sequence[str]], teachers: frozenset[str] = frozenset()
) -> list[LeaderboardEntry]:
    """Return the entries of records with ``COLUMNS``.

    Args:
        sweeps: run id -> its entries in sweeps' tables.
        teachers: runs that train teachers, besides those that a record names.
    """
    sciences, positions = distinct_sciences(table.column("science").to_pylist(), table.column("seed").to_pylist())
    of_science = np.array(positions, np.int64)
    teaching = teachers.union(*(science.teacher_runs for science in sciences.values())) - sweeps.keys()
    alone = np.array([science.teacher is None for science in sciences.values()], bool)[of_science]
    teaches = alone & np.isin(table.column("run_id").to_numpy(), list(teaching))
    # One science may be a teacher's with one seed and a student's with another: two entries.
    kinds, of_row = np.unique(2 * of_science + teaches, return_inverse=True)
    # Sorted by entry before the conversion to Python, so that objects used together lie together in memory.
    order = np.lexsort((table.column("seed").to_numpy(), of_row))
    ends = np.bincount(of_row, minlength=len(kinds)).cumsum()
    starts = [0, *ends.tolist()][: len(kinds)]
    sorted_columns = {name: table.column(name).take(pa.array(order)) for name in (*_BY_RUN, "finished_at", "warnings")}
    sorted_columns["finished_at"] = sorted_columns["finished_at"].cast(pa.int64())
    sorted_columns["warnings"] = pc.list_value_length(sorted_columns["warnings"])
    columns = {name: column.to_pylist() for name, column in sorted_columns.items()}
    facts = (table.column(name).take(pa.array(order[starts])).to_pylist() for name in _BY_LINE)
    texts = list(sciences.items())
    entries = []
    for kind, start, end, *known in zip(kinds.tolist(), starts, ends.tolist(), *facts, strict=True):
        runs = SeedRuns(columns, range(start, end), columns["seed"][start:end])
        text, science = texts[kind // 2]
        entry = _line(text, science, runs, known, sweeps)
        entries.append(replace(entry, id=_short(f"teacher {entry.id}"), teaches=True) if kind % 2 else entry)
    return _compared(entries)


def _line(
    text: str, science: Science, runs: SeedRuns, facts: Sequence[Any], sweeps: Mapping[str, Sequence[str]]
) -> LeaderboardEntry:
    """Return one entry. ``text``: of its science; ``facts``: the values of ``_BY_LINE``."""
    score = datasets.task_of(facts[0]).score
    by_seed = runs.by_seed(f"last_{score}")
    run_ids = runs.values("run_id")
    return LeaderboardEntry(
        id=_short(text),
        protocol=_protocol(science, *facts),
        teacher_key=_teacher_key(science.teachers),
        settings=_settings(science.method),
        science=science,
        sweeps=tuple(dict.fromkeys(name for run_id in run_ids for name in sweeps.get(run_id, ()))),
        run_ids=tuple(run_ids),
        by_seed=by_seed,
        last=Spread.of(by_seed.values()),
        best=runs.spread(f"best_{score}"),
        teacher_score=runs.first(f"teacher_{score}"),
        cost=_cost(runs),
        diverged=runs.diverged,
        warnings=sum(map(bool, runs.values("warnings"))),
        newest=max(runs.values("finished_at")),
    )


def _teacher_key(teachers: Iterable[Trained | Given]) -> str:
    return " + ".join(t.run if isinstance(t, Trained) else t.weights_id for t in teachers)


def _protocol(science: Science, dataset: str, train_size: int, evaluated_on: str, evaluated_size: int) -> Protocol:
    recipe = science.recipe.model_dump(mode="json")
    start = {"start": as_json(science.start)} if science.start else {}
    text = canonical({"dataset": as_json(science.dataset), "protocol": science.protocol, "recipe": recipe, **start})
    held_out = evaluated_on == "validation"
    on = f"{evaluated_size:,} {_EVALUATED_ON[evaluated_on]}"
    stop = f"{recipe['stop_epoch']} of " if recipe["stop_epoch"] else ""
    label = (
        f"{_name(canonical(recipe))}, {stop}{plural(recipe['epochs'], 'epoch')}, {train_size:,} training images, {on}"
    )
    if science.start:
        label += f", from weights {science.start.weights_id[:12]}"
    return Protocol(_short(text), dataset, label, held_out)


@cache
def _name(recipe: str) -> str:
    name = recipe_name(json.loads(recipe))
    return f"a recipe of its own ({_short(recipe)[:4]})" if name == "of its own" else name


def _settings(method: MethodSettings) -> dict[str, Any]:
    """Return the settings next to a method's name: those that differ from its defaults; all of an unknown one."""
    values = {**method.weights, **method.params}
    if method.use not in methods.builtin_names():
        return values
    info = methods.describe_method(method.use)
    defaults = {**info.weights, **{name: hyper.default for name, hyper in info.hyper.items()}}
    return {k: v for k, v in values.items() if k not in defaults or defaults[k] != v}


def _cost(runs: SeedRuns) -> Cost | None:
    """Return the mean cost; None without a finished run, or where runs were on different hardware."""
    done = [status == "done" for status in runs.values("status")]
    machines = set(compress(runs.values("hardware"), done))
    if len(machines) != 1:
        return None
    hardware = machines.pop()
    gpu = is_gpu(hardware)
    each = compress(zip(*(runs.values(k) for k in ("cost_total_s", "processes", "threads")), strict=True), done)
    hours = [s / 3600 * processes * (1 if gpu else threads) for s, processes, threads in each]
    return Cost(statistics.fmean(hours), "GPU-h" if gpu else "CPU-h", hardware)


def _compared(lines: list[LeaderboardEntry]) -> list[LeaderboardEntry]:
    baselines = [line for line in lines if line.science.method.use == BASELINE]
    undistilled = {student_of(line): line for line in baselines if not (line.settings or line.teaches)}
    distilled = (line for line in lines if line.science.method.use != BASELINE)
    out = baselines
    for entries in grouped(distilled, pair_of).values():
        reference = _reference(entries)
        means = sorted((line.last.mean for line in entries if line.last), reverse=True)
        for line in entries:
            to_reference = _paired(line, reference)
            baseline = undistilled.get(student_of(line))
            out.append(
                replace(
                    line,
                    rank=means.index(line.last.mean) + 1 if line.last else None,
                    standing=_standing(line, baseline),
                    to_baseline=_paired(line, baseline),
                    to_reference=to_reference,
                    per_hour=_per_hour(to_reference, line.cost, reference.cost if reference else None),
                )
            )
    return sorted(out, key=lambda line: line.id)


def pair_of(line: LeaderboardEntry) -> tuple[Any, ...]:
    """Return what two entries share that are compared: protocol, student and teacher, by its weights too."""
    return line.protocol.id, _student(line), line.science.teacher_model, line.teacher_key


def student_of(line: LeaderboardEntry) -> tuple[Any, ...]:
    """Return what an entry shares with the student trained alone."""
    return line.protocol.id, _student(line)


def _student(line: LeaderboardEntry) -> tuple[str, str | None]:
    """Return a line's student, by its source too: one name of a user's own stands for each state of its code."""
    return line.science.student, line.science.student_source


def _reference(entries: Sequence[LeaderboardEntry]) -> LeaderboardEntry | None:
    """Return a pair's KD: of several, the one with default settings; None where none is certain."""
    references = [line for line in entries if line.science.method.use == REFERENCE]
    plain = [line for line in references if not line.settings]
    return references[0] if len(references) == 1 else plain[0] if plain else None


def _standing(line: LeaderboardEntry, baseline: LeaderboardEntry | None) -> int | None:
    if line.last is None or baseline is None or baseline.last is None:
        return None
    difference = round(line.last.mean - baseline.last.mean, 9)  # without the rounding of sums
    return (difference > 0) - (difference < 0)


def _paired(line: LeaderboardEntry, other: LeaderboardEntry | None) -> Spread | None:
    return None if other is None or other is line else Spread.paired(line.by_seed, other.by_seed)


def _per_hour(gain: Spread | None, cost: Cost | None, reference: Cost | None) -> float | None:
    """Return points per extra hour; None without a gain, where a run costs hardly more than KD's or ran elsewhere."""
    if gain is None or gain.mean <= 0 or cost is None or reference is None or cost.hardware != reference.hardware:
        return None
    extra = cost.hours - reference.hours
    return gain.mean / extra if extra >= max(_LEAST_EXTRA_HOURS, _LEAST_EXTRA * reference.hours) else None


def ambiguous_names(entries: Iterable[LeaderboardEntry]) -> set[tuple[str, str, str]]:
    """Return (protocol, "teacher" or "student", name) where one name stands for several teachers, or for several states
    of a student's code.
    """
    keys = set[tuple[str, str, str, str | None]]()
    for line in entries:
        if teacher := line.science.teacher_model:
            keys.add((line.protocol.id, "teacher", teacher, line.teacher_key))
        keys.add((line.protocol.id, "student", line.science.student, line.science.student_source))
    counts = Counter(key[:3] for key in keys)
    return {name for name, count in counts.items() if count > 1}


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]

"""The lines of the leaderboard: records whose science differs in the seed alone, summed up.

Two lines are compared (rank, gain, gain per hour) when dataset, recipe, evaluation, student and teacher are the same.
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
from numpy.typing import NDArray

from harness.hardware import is_gpu
from harness.reporting.aggregation import SeedRuns
from harness.reporting.comparison import BASELINE, REFERENCE, Spread
from harness.reporting.published.table import recipe_name
from harness.spec import datasets, methods
from harness.spec.identity import canonical
from harness.spec.lines import grouped
from harness.spec.science import Given, MethodSettings, Science, Trained, text_without_seed
from harness.spec.tasks import CATALOG, TaskInfo

_SCORES = [f"{what}_{task.score}" for task in CATALOG.values() for what in ("last", "best", "teacher")]
_BY_RUN = ("run_id", "seed", "status", *_SCORES, "cost_total_s", "hardware", "processes", "threads")
_BY_LINE = ("dataset", "train_size", "evaluated_on", "evaluated_size")  # of any of its runs
COLUMNS = (*_BY_RUN, *_BY_LINE, "science", "warnings", "finished_at")  # of the records, which lines are made of
_EVALUATED_ON = {
    "test": "test images", "validation": "held-out images", "train": "of the training images evaluated on"
}  # fmt: skip
_ROWS_AT_ONCE = 4096  # whose science is in memory as text


@dataclass(frozen=True)
class Protocol:
    """What must be the same for two scores of one pair to be comparable."""

    id: str
    dataset: str
    label: str
    held_out: bool  # evaluated on training images that were held out, not on the test set

    @property
    def task(self) -> TaskInfo:
        """Which says what the score is."""
        return datasets.task_of(self.dataset)


@dataclass(frozen=True)
class Cost:
    """Mean over runs."""

    hours: float
    unit: str  # GPU-h; or CPU-h, of one core each
    hardware: str


@dataclass(frozen=True)
class LeaderboardEntry:
    """One method with its settings on one pair under one protocol. Its task's score in %, differences in points."""

    id: str
    protocol: Protocol
    teacher: str | None
    student: str
    teacher_key: str  # its weights' hash or its run
    use: str
    settings: Mapping[str, Any]  # those that are not the method's defaults
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
    rank: int | None = None
    to_baseline: Spread | None = None
    to_reference: Spread | None = None
    per_hour: float | None = None  # points gained over KD per hour that a run takes longer than KD's


def leaderboard_entries(table: pa.Table, sweeps: Mapping[str, Sequence[str]]) -> list[LeaderboardEntry]:
    """Of records with ``COLUMNS``, ordered by run_id. ``sweeps``: run id -> where tables have it."""
    sciences, of_row = _groups(table)
    # In the order of lines before it becomes Python's: objects that are used together lie together.
    order = np.lexsort((table.column("seed").to_numpy(), of_row))
    ends = np.bincount(of_row, minlength=len(sciences)).cumsum()
    starts = [0, *ends.tolist()][: len(sciences)]
    of = {name: table.column(name).take(pa.array(order)) for name in (*_BY_RUN, "finished_at", "warnings")}
    of["finished_at"] = of["finished_at"].cast(pa.int64())
    of["warnings"] = pc.list_value_length(of["warnings"])
    columns = {name: column.to_pylist() for name, column in of.items()}
    where = (table.column(name).take(pa.array(order[starts])).to_pylist() for name in _BY_LINE)
    return _compared(
        [
            _line(text, science, SeedRuns(columns, range(start, end), columns["seed"][start:end]), known, sweeps)
            for (text, science), start, end, *known in zip(sciences.items(), starts, ends.tolist(), *where, strict=True)
        ]
    )


def _groups(table: pa.Table) -> tuple[dict[str, Science], NDArray[np.int64]]:
    """Each science without the seed, by its text, and per row which it is.

    Of those that differ in the seed alone one is parsed.
    """
    alike: dict[str, int] = {}
    some, of_row = list[str](), list[int]()
    for batch in table.select(["science", "seed"]).to_batches(_ROWS_AT_ONCE):
        for text, seed in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            number = alike.setdefault(text_without_seed(text, seed), len(alike))
            if number == len(some):
                some.append(text)
            of_row.append(number)
    groups: dict[str, tuple[int, Science]] = {}
    same = []
    for text in some:
        science = Science.from_text(text)
        number, _ = groups.setdefault(canonical(science.without_seed()), (len(groups), science))
        same.append(number)
    return {text: science for text, (_, science) in groups.items()}, np.array(same, np.int64)[of_row]


def _line(
    text: str, science: Science, runs: SeedRuns, where: Sequence[Any], sweeps: Mapping[str, Sequence[str]]
) -> LeaderboardEntry:
    """``text``: of the science. ``where``: the values of ``_BY_LINE``."""
    score = datasets.task_of(where[0]).score
    by_seed, best = runs.by_seed(f"last_{score}"), runs.by_seed(f"best_{score}")
    run_ids = runs.values("run_id")
    return LeaderboardEntry(
        id=_short(text),
        protocol=_protocol(science, *where),
        teacher=science.teacher_model,
        student=science.student,
        teacher_key=_teacher_key(science.teacher),
        use=science.method.use,
        settings=_settings(science.method),
        science=science,
        sweeps=tuple(dict.fromkeys(name for run_id in run_ids for name in sweeps.get(run_id, ()))),
        run_ids=tuple(run_ids),
        by_seed=by_seed,
        last=Spread.of(by_seed.values()),
        best=Spread.of(value for seed, value in best.items() if seed in by_seed),
        teacher_score=runs.first(f"teacher_{score}"),
        cost=_cost(runs),
        diverged=runs.diverged,
        warnings=sum(map(bool, runs.values("warnings"))),
        newest=max(runs.values("finished_at")),
    )


def _teacher_key(teacher: Trained | Given | None) -> str:
    if teacher is None:
        return ""
    return teacher.run if isinstance(teacher, Trained) else teacher.sha256


def _protocol(science: Science, dataset: str, train_size: int, evaluated_on: str, evaluated_size: int) -> Protocol:
    recipe = science.recipe.model_dump(mode="json")
    text = canonical({"dataset": science.dataset.to_json(), "protocol": science.protocol, "recipe": recipe})
    held_out = evaluated_on == "validation"
    on = f"{evaluated_size:,} {_EVALUATED_ON[evaluated_on]}"
    label = f"{_name(canonical(recipe))}, {recipe['epochs']} epochs, {train_size:,} training images, {on}"
    return Protocol(_short(text), dataset, label, held_out)


@cache
def _name(recipe: str) -> str:
    name = recipe_name(json.loads(recipe))
    return f"a recipe of its own ({_short(recipe)[:4]})" if name == "of its own" else name


def _settings(method: MethodSettings) -> dict[str, Any]:
    """What is said of a method beside its name: settings other than its defaults; all, where these are not known."""
    values = {**method.weights, **method.params}
    if method.use not in methods.builtin_names():
        return values
    info = methods.describe_method(method.use)
    defaults = {**info.weights, **{name: hyper.default for name, hyper in info.hyper.items()}}
    return {k: v for k, v in values.items() if k not in defaults or defaults[k] != v}


def _cost(runs: SeedRuns) -> Cost | None:
    """None without a finished run, or where runs were on unlike hardware."""
    done = [status == "done" for status in runs.values("status")]
    machines = set(compress(runs.values("hardware"), done))
    if len(machines) != 1:
        return None
    hardware = machines.pop()
    gpu = is_gpu(hardware)
    each = compress(zip(*(runs.values(k) for k in ("cost_total_s", "processes", "threads")), strict=True), done)
    hours = [s / 3600 * processes * (1 if gpu else threads) for s, processes, threads in each]
    return Cost(statistics.fmean(hours), "GPU-h" if gpu else "CPU-h", hardware)


def _compared(found: list[LeaderboardEntry]) -> list[LeaderboardEntry]:
    baselines = [line for line in found if line.use == BASELINE]
    alone = {(line.protocol.id, line.student): line for line in baselines if not line.settings}
    distilled = (line for line in found if line.use != BASELINE)
    contests = grouped(distilled, lambda line: (line.protocol.id, line.student, line.teacher, line.teacher_key))
    out = baselines
    for contest in contests.values():
        reference = _reference(contest)
        means = sorted((line.last.mean for line in contest if line.last), reverse=True)
        for line in contest:
            to_reference = _paired(line, reference)
            out.append(
                replace(
                    line,
                    rank=means.index(line.last.mean) + 1 if line.last else None,
                    to_baseline=_paired(line, alone.get((line.protocol.id, line.student))),
                    to_reference=to_reference,
                    per_hour=_per_hour(to_reference, line.cost, reference.cost if reference else None),
                )
            )
    return sorted(out, key=lambda line: line.id)


def _reference(contest: Sequence[LeaderboardEntry]) -> LeaderboardEntry | None:
    """The contest's KD: the one with default settings where there are several, None where that is not clear."""
    found = [line for line in contest if line.use == REFERENCE]
    plain = [line for line in found if not line.settings]
    return found[0] if len(found) == 1 else plain[0] if plain else None


def _paired(line: LeaderboardEntry, other: LeaderboardEntry | None) -> Spread | None:
    return None if other is None or other is line else Spread.paired(line.by_seed, other.by_seed)


def _per_hour(gain: Spread | None, cost: Cost | None, reference: Cost | None) -> float | None:
    """None where a run costs no more than KD's, or hours do not compare."""
    if gain is None or cost is None or reference is None or cost.hardware != reference.hardware:
        return None
    extra = cost.hours - reference.hours
    return gain.mean / extra if extra > 0 else None


def ambiguous_teachers(found: Iterable[LeaderboardEntry]) -> set[tuple[str, str]]:
    """(protocol, teacher's name) where one name stands for several teachers."""
    keys = {(line.protocol.id, line.teacher, line.teacher_key) for line in found if line.teacher}
    counts = Counter((protocol, teacher) for protocol, teacher, _ in keys)
    return {(protocol, teacher) for (protocol, teacher), count in counts.items() if teacher and count > 1}


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]

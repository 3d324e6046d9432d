"""A sweep's tuning as tables: what each method was given, which settings won and what they gained, and every trial."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import UserError
from harness.phrases import plural
from harness.reporting.escape import escape_markdown
from harness.reporting.setting_values import value_text, values_text
from harness.reporting.tables.columns import Column, Lines, table_lines
from harness.reporting.tables.formats import csv_lines, markdown_table
from harness.spec.lines import grouped
from harness.spec.tasks import shown
from harness.store import files
from harness.store.store import Store
from harness.store.tuning_log import Trial, TuningLog, read_log

FILES = ("tuning.md", "tuning.csv", "tuning.parquet")
EDGE = 0.05  # the share of a range's width, at either end, that counts as its edge
_COLUMNS = {  # of a trial in tuning.csv and tuning.parquet
    "sweep": pa.string(), "method": pa.string(), "trial": pa.int64(), "round": pa.int64(), "settings": pa.string(),
    "epochs": pa.int64(), "images": pa.int64(), "metric": pa.string(), "validation_score": pa.float64(),
    "state": pa.string(), "won": pa.bool_(), "sampler": pa.string(), "seeds": pa.string(),
    "validation_images": pa.int64(), "run_ids": pa.string(),
}  # fmt: skip


@dataclass(frozen=True)
class TunedMethod:
    """A method's part in a tuning: what it was given, and what came of it."""

    name: str
    trials: int
    images: int  # trained on in all trials
    budget: str  # equal, more or fewer: its images beside those of most methods
    own: float | None  # the score of the entry's own settings: trial 0
    winner: Trial | None  # None: no trial was trained to the end
    remarks: tuple[str, ...]

    @property
    def gained(self) -> float | None:
        """The points by which the winner is better than the entry's own settings."""
        if self.winner is None or self.winner.value is None or self.own is None:
            return None
        return self.winner.value - self.own


def read_tuning(store: Store, sweep: str) -> TuningLog:
    """Return the log of a sweep's tuning.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        return read_log(store, sweep)
    except FileNotFoundError:
        raise UserError(f"{store.tuning(sweep)}: missing; run harness.tune on its sweep file to write it") from None


def tuned_methods(log: TuningLog) -> list[TunedMethod]:
    """Return the methods with a search, in the order of the log."""
    trials = grouped(log.trials, lambda trial: trial.method)
    images = {method: sum(trial.images for trial in own) for method, own in trials.items()}
    counts = Counter(images.values())
    usual = min(counts, key=lambda number: (-counts[number], number), default=0)
    return [_tuned_method(log, method, own, images[method], usual) for method, own in trials.items()]


def _tuned_method(log: TuningLog, method: str, trials: Sequence[Trial], images: int, usual: int) -> TunedMethod:
    winner = log.winner(method)
    own = next((trial.value for trial in trials if trial.number == 0 and trial.state == "done"), None)
    budget = "equal" if images == usual else "more" if images > usual else "fewer"
    remarks = tuple(_remarks(log, method, trials, winner))
    return TunedMethod(method, len(trials), images, budget, own, winner, remarks)


def _remarks(log: TuningLog, method: str, trials: Sequence[Trial], winner: Trial | None) -> Iterator[str]:
    lost = Counter(trial.state for trial in trials)
    if bad := [f"{lost[state]} {state}" for state in ("diverged", "failed") if lost[state]]:
        yield f"{' and '.join(bad)} of {plural(len(trials), 'trial')}"
    if winner is None:
        yield "no trial was trained to the end, so its own settings stay"
        return
    for key, values in sorted(log.search.get(method, {}).items()):
        if place := _edge(values, winner.settings.get(key)):
            value = value_text(winner.settings.get(key))
            yield f"{key} {value} is {place} what was searched: better values may lie beyond it"


def _edge(searched: Any, value: Any) -> str:
    """Return where a value lies that is at an end of a list of numbers or of a range, or beyond it; "" for elsewhere.

    An entry's own value may lie beyond.
    """
    if not is_number(value):
        return ""
    if scale := scale_of(searched):
        low, high, value = (_on(scale, number) for number in (*searched[scale], value))
        margin = EDGE * (high - low)
    else:
        numbers = [number for number in searched if is_number(number)]
        low, high, margin = min(numbers, default=value), max(numbers, default=value), 0.0
    if low == high:
        return ""
    if value < low or value > high:
        return "below" if value < low else "above"
    return "at the lower end of" if value <= low + margin else "at the upper end of" if value >= high - margin else ""


def scale_of(searched: Any) -> str:
    """Return ``log`` or ``uniform`` for a range, "" for a list of values."""
    return next(iter(searched), "") if isinstance(searched, Mapping) else ""


def is_number(value: Any) -> bool:
    """Return whether a setting's value has a place on an axis: a bool has none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _on(scale: str, number: float) -> float:
    """Return a number's position on a range's scale. An entry's own value may be 0, below every logarithmic range."""
    if scale == "uniform":
        return number
    return math.log(number) if number > 0 else -math.inf


# text ----------------------------------------------------------------------------------------------------------------


def tuning_text(log: TuningLog) -> str:
    """Return the tables of a tuning as Markdown, for a pipe and ``tuning.md``."""
    tuned = tuned_methods(log)
    trials = table_lines(_trial_columns(log), log.trials)
    parts = [
        f"{escape_markdown(title(log))}:\n",
        _markdown(method_lines(log)),
        *map(escape_markdown, method_notes(log, tuned)),
        f"\nEvery trial of {escape_markdown(log.sweep)}:\n",
        _markdown(trials),
    ]
    return "\n".join(parts)


def method_lines(log: TuningLog) -> Lines:
    """Return the table of the methods, those without a search too."""
    untuned = (TunedMethod(method, 0, 0, "", None, None, ()) for method in log.untuned)
    return table_lines(_method_columns(log), [*tuned_methods(log), *untuned])


def title(log: TuningLog) -> str:
    """Return what was tuned on, and which score the tables have."""
    seeds = ", ".join(map(str, log.seeds))
    return (
        f"Tuning of {log.sweep} on {plural(log.validation, 'held-out training image')}, which no trial trains on; "
        f"{shown(log.score)} in %, mean over pairs and {'seed' if len(log.seeds) == 1 else 'seeds'} {seeds}"
    )


def _markdown(lines: Sequence[tuple[str, ...]]) -> str:
    return markdown_table([tuple(map(escape_markdown, line)) for line in lines])


def _method_columns(log: TuningLog) -> list[Column[TunedMethod]]:
    return [
        Column("method", lambda method: method.name),
        Column("settings that won", _winning_settings),
        Column("trials", lambda method: str(method.trials)),
        Column("images trained on", _images_text),
        Column("own settings", lambda method: _score_text(method.own)),
        Column("winner", lambda method: _score_text(method.winner.value if method.winner else None)),
        Column("gained", lambda method: "" if method.gained is None else f"{method.gained:+.2f}"),
    ]


def _winning_settings(method: TunedMethod) -> str:
    if not method.trials:
        return "not tuned"
    if method.winner is None:
        return "none: its own stay"
    own = "its own: " if method.winner.number == 0 else ""
    return f"{own}{settings_text(method.winner.settings)}"


def _images_text(method: TunedMethod) -> str:
    return f"{method.images:,}" + (f" ({method.budget})" if method.budget in ("more", "fewer") else "")


def _trial_columns(log: TuningLog) -> list[Column[Trial]]:
    return [
        Column("method", lambda trial: trial.method),
        Column("settings", lambda trial: settings_text(trial.settings)),
        Column("trial", lambda trial: str(trial.number)),
        Column("epochs", lambda trial: str(trial.epochs)),
        Column(f"validation {shown(log.score)}", lambda trial: _score_text(trial.value)),
        Column("state", lambda trial: "won" if trial == log.winner(trial.method) else trial.state),
    ]


def method_notes(log: TuningLog, tuned: Sequence[TunedMethod]) -> Iterator[str]:
    """Yield the rule by which settings won, and what a reader must know of the budgets and of single methods."""
    yield f"Rule of choice: {rule(log)}."
    yield "Trial 0 has the entry's own settings. A winner's score is the best of several, so it is optimistic."
    if text := _unequal(tuned):
        yield text
    for method in tuned:
        yield from (f"{method.name}: {remark}." for remark in method.remarks)


def rule(log: TuningLog) -> str:
    """Return the rule by which a trial wins."""
    return (
        f"the highest mean over pairs and seeds of the validation {shown(log.score)} after the last epoch, among the "
        "trials that were trained to the end; of equal ones the earliest"
    )


def _unequal(tuned: Sequence[TunedMethod]) -> str:
    """Return a sentence on the methods that were tuned more or less than most, "" where there are none."""
    names = {end: ", ".join(method.name for method in tuned if method.budget == end) for end in ("more", "fewer")}
    parts = [f"{end} images than most for {of_end}" for end, of_end in names.items() if of_end]
    return f"Unequal budgets of tuning: {'; '.join(parts)}." if parts else ""


def tuning_notes(log: TuningLog) -> tuple[str, ...]:
    """Return the remarks under the table of the methods that were tuned."""
    tuned = tuned_methods(log)
    budgets = grouped(tuned, lambda method: (method.trials, method.images))
    texts = [
        f"{', '.join(method.name for method in methods)} ({'each ' * (len(methods) > 1)}{plural(trials, 'trial')}, "
        f"{plural(images, 'image')} trained on)"
        for (trials, images), methods in budgets.items()
    ]
    notes = [
        f"Settings chosen by validation {shown(log.score)} on {plural(log.validation, 'held-out training image')}: "
        f"{'; '.join(texts)}."
    ]
    notes += [text] if (text := _unequal(tuned)) else []
    notes += [f"Not tuned: {', '.join(log.untuned)}."] if log.untuned else []
    return tuple(notes)


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return settings on one line, sorted by name: ``params.temperature 4, weights.kd 0.9``."""
    return values_text(dict(sorted(settings.items())))


def _score_text(score: float | None) -> str:
    return "" if score is None else f"{score:.2f}"


# data ----------------------------------------------------------------------------------------------------------------


def tuning_dict(log: TuningLog) -> dict[str, Any]:
    """Return a tuning as plain data, for ``--json``."""
    methods = [
        {**asdict(method), "winner": method.winner and method.winner.number, "gained": method.gained,
         "settings": method.winner and method.winner.settings}
        for method in tuned_methods(log)
    ]  # fmt: skip
    return {**asdict(log), "rule": rule(log), "methods": methods}


def write_tuning(log: TuningLog, folder: Path) -> None:
    """Write tuning.md, and a line per trial into tuning.csv and tuning.parquet.

    Raises:
        DiskFull: the folder's disk is full.
    """
    rows = list(_rows(log))
    files.replace_text(folder / "tuning.md", tuning_text(log))
    files.replace_text(folder / "tuning.csv", csv_lines([list(_COLUMNS), *(row.values() for row in rows)]))
    table = pa.Table.from_pylist(rows, schema=pa.schema(_COLUMNS.items()))
    files.replace(folder / "tuning.parquet", partial(pq.write_table, table), durable=False)


def _sorted_json(settings: Mapping[str, Any]) -> str:
    """Return settings in the order in which a log that is read has them."""
    return json.dumps(settings, sort_keys=True)


def _rows(log: TuningLog) -> Iterator[dict[str, Any]]:
    for trial in log.trials:
        values = (
            log.sweep, trial.method, trial.number, trial.round, _sorted_json(trial.settings),
            trial.epochs, trial.images,
            log.score, trial.value, trial.state, trial == log.winner(trial.method), log.sampler,
            " ".join(map(str, log.seeds)), log.validation, " ".join(trial.run_ids),
        )  # fmt: skip
        yield dict(zip(_COLUMNS, values, strict=True))

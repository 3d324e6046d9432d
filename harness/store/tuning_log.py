"""The log of a sweep's tuning: every trial of every method, and which won."""

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from harness.errors import UserError
from harness.store import json_files
from harness.store.json_files import CLOSED
from harness.store.store import Store

Ends = tuple[float, float]  # lowest and highest
Searched = list[Any] | dict[Literal["log", "uniform"], Ends]  # values, or a range with its scale


@dataclass(frozen=True)
class Trial:
    """A method with settings to try, trained on every pair of the sweep with every seed of the tuning."""

    __pydantic_config__ = CLOSED
    method: str  # the entry of the sweep file
    number: int  # 0: the entry's own settings
    round: int  # trials of one round were proposed together
    settings: dict[str, Any]  # of the search: key of the entry, such as "weights.kd" -> value
    run_ids: tuple[str, ...]  # of its last rung, by pair, then seed
    epochs: int  # that each run trained: fewer than the recipe's if the trial was stopped at a rung
    images: int  # trained on in all, those of lower rungs included
    value: float | None  # mean over runs of the validation score in %; None: diverged, or a run failed
    state: Literal["done", "stopped", "diverged", "failed"]  # stopped: at a rung


@dataclass(frozen=True)
class TuningLog:
    """Everything that a tuning tried. Trials are in the order of their methods and numbers."""

    __pydantic_config__ = CLOSED
    sweep: str
    score: str  # "top1"
    sampler: str
    seeds: tuple[int, ...]
    validation: int  # held-out training images
    trials: tuple[Trial, ...]
    untuned: tuple[str, ...]  # methods without a search
    search: dict[str, dict[str, Searched]] = field(default_factory=dict)  # method -> key of its entry -> what is tried
    identity: str = ""  # a hash of all that decides the trials: with another one, a tuning starts afresh

    def of_method(self, method: str) -> list[Trial]:
        """Return a method's trials, by number."""
        return [trial for trial in self.trials if trial.method == method]

    def winner(self, method: str) -> Trial | None:
        """Return the trial with the best value of those trained to the end, the earliest of equal ones."""
        done = [t for t in self.of_method(method) if t.state == "done" and t.value is not None]
        return max(done, key=lambda t: t.value or 0.0, default=None)


def read_log(store: Store, sweep: str) -> TuningLog:
    """Return the log of a sweep's tuning, whose values are those of the runs' records as far as there are such.

    Raises:
        FileNotFoundError: there is none.
        UserError: it is unreadable or damaged.
    """
    path = store.tuning(sweep)
    log = json_files.read_checked(TuningLog, path)
    if wrong := _contradicted_trials(log, store):
        raise UserError(
            f"{path}: damaged: trial {wrong[0].number} of {wrong[0].method} has another score than the records of its "
            "runs; delete the file, and harness.tune writes it again from these"
        )
    return log


def _contradicted_trials(log: TuningLog, store: Store) -> list[Trial]:
    from harness.store import records
    from harness.store.schema import SCHEMA

    column, run_ids = f"last_{log.score}", {run_id for trial in log.trials for run_id in trial.run_ids}
    if column not in SCHEMA.names:
        return list(log.trials)
    rows = records.read_records(store, run_ids, ("run_id", column))
    scores = dict(zip(*(rows.column(name).to_pylist() for name in ("run_id", column)), strict=True))
    compared = (t for t in log.trials if t.value is not None and scores.keys() >= set(t.run_ids))
    return [trial for trial in compared if trial.value != _mean([scores[run_id] for run_id in trial.run_ids])]


def _mean(scores: list[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return fmean(known) if known and len(known) == len(scores) else None

"""The plan of a tuning: what is searched, on which images and seeds, and its trials as runs of a sweep."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count, islice
from math import ceil, prod
from typing import Any, NamedTuple

from harness.errors import UserError, collected, raise_mistakes
from harness.planning.plan import Planned, read_added
from harness.planning.tuning_proposals import Space
from harness.spec import expand, identity
from harness.spec.schema import Method, Pair, Sweep
from harness.spec.science import Science
from harness.spec.search_space import Settings, changed_entry, overridden_settings, search_space
from harness.spec.sweep_plan import Cell, Run
from harness.spec.teacher_reference import RunReference
from harness.spec.tuning_keys import Tune
from harness.store.tuning_log import Trial, TuningLog

FIRST_SEED = 1000
LARGEST_GRID = 10_000  # trials of a method


class Proposal(NamedTuple):
    """Settings of a method to try."""

    method: str
    number: int
    settings: Settings

    @property
    def name(self) -> str:
        """The name that the trial has as a method of a sweep."""
        return f"{self.method}.{self.number}"


Stage = Sequence[tuple[Proposal, int | None]]  # with the epoch after which each stops; None: the recipe's last


@dataclass
class TuningPlan:
    """The search of each method of a sweep, and the images and seeds that its trials are judged on."""

    base: Planned  # the sweep, each entry with its own settings
    tune: Tune
    only: expand.Only
    spaces: dict[str, Space]  # by method
    seeds: tuple[int, ...]
    validation: int
    _run_ids: dict[str, tuple[str, ...] | None] = field(default_factory=dict)  # by canonical text of settings

    @classmethod
    def of(cls, base: Planned, only: expand.Only) -> "TuningPlan":
        """Return the plan of a sweep's tuning.

        Raises:
            UserError: the sweep has none, or a mistake in it; it names all.
        """
        sweep, document = base.plan.sweep, base.document
        if sweep.tune is None:
            text = "is required and missing, for example `tune: {trials: 12}`"
            raise document.mistake(("tune",), text, is_missing=True)
        methods = dict.fromkeys(cell.method for cell in base.plan.cells)
        spaces: dict[str, Space] = {
            name: search_space(name, sweep.methods[name]) for name in methods if sweep.methods[name].search
        }
        if not spaces:
            example = "kd: {search: {params.temperature: [2, 4, 8]}}"
            raise document.mistake(("methods",), f"none of them has a `search`, for example {example}")
        taken = {*sweep.seeds, *(cell.seed for cell in base.plan.cells)}
        seeds = tuple(islice((seed for seed in count(FIRST_SEED) if seed not in taken), sweep.tune.seeds))
        plan = cls(base, sweep.tune, only, spaces, seeds, sweep.tune.validation or _tenth(base))
        raise_mistakes([*overridden_settings(sweep, document), *plan._mistakes()])
        return plan

    def _mistakes(self) -> list[UserError]:
        sweep, document = self.base.plan.sweep, self.base.document
        mistakes: list[UserError] = []
        if sweep.dataset.validation is not None:
            text = "the final runs are evaluated on the test set: state `tune.validation` instead"
            mistakes.append(document.mistake(("dataset", "validation"), text))
        else:
            with collected(mistakes), document.place(("tune", "validation")):
                self._dataset_of_trials(sweep).dataset.check_parts(self.base.info)
        for name in self.spaces:
            if trial := next(
                (other for other in sweep.methods if re.fullmatch(rf"{re.escape(name)}\.\d+", other)), None
            ):
                mistakes.append(
                    document.mistake(("methods", trial), f"a trial of {name} has this name: expected another")
                )
            if "recipe.batch_size" in self.spaces[name] and self._science(name).recipe.epoch_steps:
                text = "with epoch_steps it decides how many images a trial trains on, and all trials train on as many"
                mistakes.append(document.mistake(("methods", name, "search", "recipe.batch_size"), text))
            if self.tune.sampler == "grid":
                mistakes += self._grid_mistakes(name)
        cells = (cell for cell in self.base.plan.cells if cell.method in self.spaces)
        last = min(self.base.plan.runs[cell.run_id].science.recipe.last_epoch for cell in cells)
        if self.tune.rungs and self.tune.rungs[-1] >= last:
            text = f"expected epochs before the last one, {last}, found {self.tune.rungs[-1]}"
            mistakes.append(document.mistake(("tune", "rungs"), text))
        return mistakes

    def _grid_mistakes(self, name: str) -> list[UserError]:
        document, space = self.base.document, self.spaces[name]
        ranges = [key for key, dimension in space.items() if not dimension.values]
        text = "sampler grid tries every combination of lists: expected a list, found a range"
        mistakes = [document.mistake(("methods", name, "search", key), text) for key in ranges]
        if not ranges and (size := prod(len(dimension.values) for dimension in space.values())) > LARGEST_GRID:
            text = f"has {size:,} combinations; a grid may have {LARGEST_GRID:,}"
            mistakes.append(document.mistake(("methods", name, "search"), text))
        return mistakes

    # trials as runs ----------------------------------------------------------------------------------------------

    def plan_stage(self, stage: Stage) -> Planned:
        """Return the plan of the runs that train some trials, and of their teachers.

        Raises:
            UserError: a sweep file may not have such settings.
        """
        sweep = self._dataset_of_trials(self.base.plan.sweep)
        teaching = teaching_methods(sweep)
        entries = {name: changed_entry(name, sweep.methods[name], {}) for name in teaching}
        entries |= {trial.name: self.entry(trial) for trial, _ in stage}
        pairs = tuple(_pair_of_trials(pair, stage, teaching) for pair in sweep.pairs)
        changes = {"methods": entries, "pairs": pairs, "seeds": self.seeds, "tune": None}
        only = {key: values for key, values in self.only.items() if key in ("teacher", "student")}
        only["method"] = {trial.name for trial, _ in stage}
        return self.base.variant(sweep.model_copy(update=changes), self.base.tuning_name, only)

    def to_check(self) -> Planned:
        """Return the plan of the runs whose first step tells whether the methods take what is searched.

        Each has its own settings, and then one other value of a list in turn; decimal numbers change no shapes.
        """
        trials = [(self.own(method), method) for method in self.spaces]
        for own, _ in list(trials):
            alone = ((key, value) for key, d in self.spaces[own.method].items() for value in d.values)
            for key, value in ((key, value) for key, value in alone if not isinstance(value, float)):
                trial = Proposal(own.method, len(trials), {**own.settings, key: value})
                if self.run_ids(trial) is not None:
                    trials.append((trial, f"methods.{own.method}.search.{key} {value}"))
        planned = self.plan_stage([(trial, None) for trial, _ in trials])
        for trial, name in trials:
            for run in cell_runs(planned, trial):
                label = run.label.replace(f" / {trial.name} / ", f" / {name} / ")
                planned.plan.runs[run.run_id] = replace(run, label=label)
        return planned

    def entry(self, trial: Proposal) -> Method:
        """Return a trial's entry of ``methods``. Trial 0 is the file's own entry, without its search."""
        entry = self.base.plan.sweep.methods[trial.method]
        return changed_entry(trial.method, entry, trial.settings if trial.number else {})

    def own(self, method: str) -> Proposal:
        """Return trial 0 of a method: the entry's own settings."""
        science = self._science(method)
        recipe = science.recipe.model_dump(mode="json")
        values = {"params": science.method.params, "weights": science.method.weights, "recipe": recipe}
        keys = {key: key.partition(".") for key in self.spaces[method]}
        return Proposal(method, 0, {key: values[part][name] for key, (part, _, name) in keys.items()})

    def has(self, trial: Trial) -> bool:
        """Return whether a trial from a file is one of the search."""
        space = self.spaces.get(trial.method, {})
        if not space or trial.settings.keys() != space.keys():
            return False
        return trial.number == 0 or all(space[key].holds(value) for key, value in trial.settings.items())

    def run_ids(self, trial: Proposal) -> tuple[str, ...] | None:
        """Return the runs that train a trial to the end; None where a sweep file may not have its settings."""
        key = identity.canonical({"of": [trial.method, trial.settings if trial.number else None]})
        if key not in self._run_ids:
            try:
                self._run_ids[key] = tuple(cell.run_id for cell in self.plan_stage([(trial, None)]).plan.cells)
            except UserError:
                self._run_ids[key] = None
        return self._run_ids[key]

    def _dataset_of_trials(self, sweep: Sweep) -> Sweep:
        dataset = sweep.dataset.model_copy(update={"validation": self.validation})
        return sweep.model_copy(update={"dataset": dataset})

    def _science(self, method: str) -> Science:
        """Return the science of one of the file's own runs of a method."""
        cell = next(cell for cell in self.base.plan.cells if cell.method == method)
        return self.base.plan.runs[cell.run_id].science

    # identity and budget -----------------------------------------------------------------------------------------

    @cached_property
    def searches(self) -> dict[str, dict[str, Any]]:
        """The searches as plain data, by method."""
        entries = {name: self.base.plan.sweep.methods[name] for name in self.spaces}
        return {k: entry.model_dump(include={"search"}, exclude_none=True)["search"] for k, entry in entries.items()}

    @cached_property
    def identity(self) -> str:
        """A hash of all that decides the trials."""
        methods = {name: [self.searches[name], self.run_ids(self.own(name))] for name in self.spaces}
        return identity.digest({"tune": self.tune.model_dump(mode="json"), "methods": methods})

    def sampler_seed(self, method: str, round: int) -> int:
        """Return the seed of a method's proposals in a round, which does not depend on how many follow."""
        content = [method, self.searches[method], self.run_ids(self.own(method)), round]
        return int(identity.digest({"of": content})[:8], 16)

    def trials_of(self, method: str) -> int:
        """Return how many trials a method has, unless combinations are left out that a sweep file may not have."""
        space = self.spaces[method]
        if not all(dimension.values for dimension in space.values()):
            return self.tune.trials or 1
        own = self.own(method).settings
        listed = all(dimension.holds(own[key]) for key, dimension in space.items())
        there = prod(len(dimension.values) for dimension in space.values()) + (not listed)
        return min(there, self.tune.trials or there)

    @property
    def rounds(self) -> int:
        """The number of rounds in which all trials are proposed."""
        return ceil(max(map(self.trials_of, self.spaces)) / self.tune.together)

    def kept(self, trials: int) -> int:
        """Return how many of some trials go on at a rung."""
        return min(trials, max(1, int(trials * self.tune.keep + 1e-9)))

    # the final sweep ---------------------------------------------------------------------------------------------

    def final(self, log: TuningLog) -> Planned:
        """Return the plan of the sweep's own runs with the settings that won.

        Raises:
            UserError: one of its seeds has served the tuning.
        """
        sweep = self.base.plan.sweep
        entries = {name: entry.model_copy(update={"search": {}}) for name, entry in sweep.methods.items()}
        for name, settings in winning_settings(log).items():
            entries[name] = changed_entry(name, entries[name], settings)
        added: list[Cell] = read_added(self.base.store.added_seeds(sweep.name or self.base.name))
        changed = sweep.model_copy(update={"methods": entries, "tune": None})
        planned = self.base.variant(changed, self.base.name, self.only, added)
        if used := {cell.seed for cell in planned.plan.cells} & set(self.seeds):
            raise UserError(
                f"{self.base.document.source}: seed {min(used)} has served the tuning, so that no final run may have "
                "it: take it from the seeds that `sweep --until-decided` has added"
            )
        return planned


def winning_settings(log: TuningLog) -> dict[str, Settings]:
    """Return the settings that won, by method, without those of entries that stay as they are."""
    methods = dict.fromkeys(trial.method for trial in log.trials)
    winners = {method: winner for method in methods if (winner := log.winner(method)) is not None}
    return {method: winner.settings for method, winner in winners.items() if winner.number}


def cell_runs(planned: Planned, trial: Proposal) -> list[Run]:
    """Return the runs of a trial's cells, by pair, then seed."""
    return [planned.plan.runs[cell.run_id] for cell in planned.plan.cells if cell.method == trial.name]


def _tenth(base: Planned) -> int:
    """Return a tenth of the training images, as many of each class."""
    unit = base.info.subset_unit
    return max(ceil(10 / unit), base.info.train_size // 10 // unit) * unit


def teaching_methods(sweep: Sweep) -> set[str]:
    """Return the methods whose runs teach other pairs. They do so with their own settings while these are tuned."""
    teachers = (teacher for pair in sweep.pairs for teacher in pair.teacher_reference.teachers)
    return {teacher.method for teacher in teachers if isinstance(teacher, RunReference)}


def _pair_of_trials(pair: Pair, stage: Stage, teaching: Collection[str]) -> Pair:
    """Return a pair with its changes to methods for their trials, and the epochs after which these stop."""
    changes = {name: change for name, change in pair.methods.items() if name in teaching}
    for trial, stop in stage:
        change = pair.methods.get(trial.method, Method())
        # Evaluated where it stops, whatever the recipe says, as nothing looks at earlier scores.
        recipe = {**change.recipe, **({"stop_epoch": stop, "eval_every": stop} if stop else {})}
        changes[trial.name] = change.model_copy(update={"recipe": recipe})
    return pair.model_copy(update={"methods": changes})

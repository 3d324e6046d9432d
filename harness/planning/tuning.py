"""A sweep's tuning, round by round. The trials of a round are one sweep's runs, so that they share packs and jobs."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from math import inf
from statistics import fmean
from typing import Any

from harness.console.terminal import say
from harness.errors import UserError
from harness.phrases import file_name, percent, plural
from harness.planning.check import check_first_steps
from harness.planning.plan import Planned
from harness.planning.queues import Queues
from harness.planning.submit import Request, check_writable, submit, work_of
from harness.planning.tuning_budget import images_until
from harness.planning.tuning_plan import Proposal, Stage, TuningPlan, cell_runs
from harness.planning.tuning_proposals import Accept, propose
from harness.planning.watch import watch
from harness.spec.lines import grouped
from harness.spec.search_space import Settings
from harness.store import checksums, files, json_files
from harness.store.tuning_log import Trial, TuningLog, read_log


class NotTrained(Exception):
    """Nothing trains some runs of a round any more. Their jobs were lost or cancelled; watching has said so."""


@dataclass
class Tuning:
    """A tuning at work: its plan, and how its runs are started."""

    plan: TuningPlan
    request: Request
    retry_failed: bool
    check: bool  # whether each method takes a first step before it is trained

    def run(self, log: TuningLog) -> TuningLog:
        """Train what a log lacks, and write it after each round.

        Raises:
            UserError: data or weights are missing, or a method cannot take a step with its own settings.
            NotTrained: jobs were lost; called again, it goes on.
            KeyboardInterrupt: ctrl-C while watching; the jobs continue.
        """
        while proposals := self.next_round(log):
            number = 1 + max((trial.round for trial in log.trials), default=-1)
            say(f"round {number + 1} of {self.plan.rounds}: {plural(len(proposals), 'trial')}")
            trials = self._train_round(proposals, number)
            by_method = grouped([*log.trials, *trials], lambda trial: trial.method)
            log = replace(log, trials=tuple(trial for own in by_method.values() for trial in own))
            self._write(log)
            say("\n".join(_best_so_far(log)))
        return log

    def recorded(self) -> TuningLog:
        """Return the log as far as it is written; an empty one where the file has changed since.

        Raises:
            UserError: it is unreadable or damaged.
        """
        plan, path = self.plan, self.plan.base.store.tuning(self.plan.base.name)
        methods = dict.fromkeys(cell.method for cell in plan.base.plan.cells)
        untuned = tuple(method for method in methods if method not in plan.spaces)
        score, sampler = plan.base.info.task.score, plan.tune.sampler
        new = TuningLog(
            plan.base.name, score, sampler, plan.seeds, plan.validation, (), untuned, plan.searches, plan.identity
        )
        try:
            log = read_log(plan.base.store, plan.base.name)
        except FileNotFoundError:
            return new
        if log.identity != plan.identity:
            say(
                f"{log.sweep}: its search, its budget or the sweep has changed since it was tuned, so that the tuning "
                "starts again; runs that stay the same are not trained again"
            )
            return new
        if not all(map(plan.has, log.trials)):
            raise UserError(f"{path}: damaged: a trial has other settings than the search; restore it from a copy")
        # What was proposed after a failure may not be what its retrial leads to.
        failed = [trial.round for trial in log.trials if trial.state == "failed" and self.retry_failed]
        kept = tuple(trial for trial in log.trials if trial.round < min(failed, default=inf))
        return replace(new, trials=kept)

    # rounds ------------------------------------------------------------------------------------------------------

    def next_round(self, log: TuningLog) -> list[Proposal]:
        """Return the trials of the round after those of the log, by method; none at the end."""
        number = 1 + max((trial.round for trial in log.trials), default=-1)
        proposals: list[Proposal] = []
        for method in self.plan.spaces:
            done = log.of_method(method)
            most = min(self.plan.tune.together, (self.plan.tune.trials or inf) - len(done))
            own = [] if done else [self.plan.own(method)]
            settings = propose(
                self.plan.spaces[method],
                done,
                int(most) - len(own),
                self.plan.tune.sampler,
                self.plan.sampler_seed(method, number),
                self._accept(method, done),
            )
            proposals += own
            proposals += [Proposal(method, len(done) + len(own) + i, values) for i, values in enumerate(settings)]
        return proposals

    def _accept(self, method: str, trials: Iterable[Trial]) -> Accept:
        """Return a function that tells whether settings make other runs than all that were tried or accepted."""
        tried = {self.plan.run_ids(self.plan.own(method))}
        tried |= {self.plan.run_ids(Proposal(method, trial.number, trial.settings)) for trial in trials}

        def accept(settings: Settings) -> bool:
            run_ids = self.plan.run_ids(Proposal(method, 1, settings))
            if run_ids is None or run_ids in tried:
                return False
            tried.add(run_ids)
            return True

        return accept

    def _train_round(self, proposals: Sequence[Proposal], number: int) -> list[Trial]:
        """Train a round's trials, fewer and fewer from rung to rung; trial 0 is trained to the end at once."""
        trials: dict[str, Trial] = {}
        going = list(proposals)
        for rung in (*self.plan.tune.rungs, None):
            stage = _stage(going, rung)
            for proposal, trial in zip(going, self._train_stage(stage, number) if stage else (), strict=True):
                before = trials.get(proposal.name)
                trials[proposal.name] = replace(trial, images=trial.images + (before.images if before else 0))
            going = self._best(going, trials)
        return list(trials.values())

    def first_stage(self, proposals: Iterable[Proposal]) -> Stage:
        """Return what a round trains first."""
        return _stage(proposals, next(iter(self.plan.tune.rungs), None))

    def _best(self, proposals: Iterable[Proposal], trials: dict[str, Trial]) -> list[Proposal]:
        """Return the trials of each method that go on after a rung, in their order."""
        going: list[Proposal] = []
        for of_method in grouped((p for p in proposals if p.number), lambda p: p.method).values():
            scores = {p.name: trials[p.name].value for p in of_method}
            alive = sorted((p for p in of_method if scores[p.name] is not None), key=lambda p: -(scores[p.name] or 0))
            best = alive[: self.plan.kept(len(of_method))]
            going += sorted(best, key=lambda p: p.number)
        return going

    def _train_stage(self, stage: Stage, number: int) -> list[Trial]:
        """Train trials, each to its epoch, and return them with their results."""
        planned = self.plan.plan_stage(stage)
        first = self.check and any(not proposal.number for proposal, _ in stage)
        part = f"round {number + 1} of {self.plan.rounds}"
        states = train(self.request, planned, self.retry_failed, self.plan.to_check() if first else None, part)
        if "to do" in states.values():
            raise NotTrained
        scores = _scores(planned)
        return [_trial(planned, proposal, stop, number, states, scores) for proposal, stop in stage]

    def _write(self, log: TuningLog) -> None:
        """Write the log and its tables. A log of another search, budget or sweep makes way for it."""
        from harness.reporting.tuning import write_tuning

        store = self.plan.base.store
        path = store.tuning(log.sweep)
        with suppress(FileNotFoundError):
            before = json_files.read_checked(TuningLog, path)
            if before.identity != log.identity:
                aside = store.tuning(file_name(f"{log.sweep}-{before.identity[:8]}"))
                path.replace(aside)
                say(f"the earlier trials are kept in {aside}")
        files.replace_json(path, checksums.seal_value(asdict(log)))
        write_tuning(log, store.table_folder(log.sweep))


def train(request: Request, planned: Planned, retry_failed: bool, checked: Planned | None, part: str) -> dict[str, str]:
    """Train what is left of a plan, and return the state of each run.

    ``checked``: the plan that takes a step before; ``part``: what of the tuning this is, for whoever watches.

    Raises:
        UserError: data or weights are missing, or one of the checked runs would fail.
        KeyboardInterrupt: ctrl-C while watching; the jobs continue.
    """
    request.track(planned)
    work = work_of(request, planned, retry_failed)
    if work.to_do:
        check_writable(work)
        if checked and (to_check := work_of(request, checked, retry_failed).to_do):
            check_first_steps(checked, to_check, request.cluster)
        say(work.text())
        queue_file, notification = submit(work), request.notification
        tell = notification.of_stage(planned, work.to_do, queue_file, part) if notification else None
        watch(planned, Queues.of(queue_file), restart=True, part=part, tell=tell)
    return planned.states()


def _stage(proposals: Iterable[Proposal], rung: int | None) -> Stage:
    return [(proposal, rung if proposal.number else None) for proposal in proposals]


def _scores(planned: Planned) -> dict[str, float | None]:
    """Return the score of each recorded run after its last epoch; None where it diverged."""
    from harness.store import records

    column = f"last_{planned.info.task.score}"
    rows = records.read_records(planned.store, planned.plan.runs, ("run_id", "status", column)).to_pylist()
    return {row["run_id"]: row[column] if row["status"] == "done" else None for row in rows}


def _trial(
    planned: Planned, proposal: Proposal, stop: int | None, number: int, states: dict[str, str],
    scores: dict[str, float | None],
) -> Trial:  # fmt: skip
    runs = cell_runs(planned, proposal)
    run_ids = tuple(run.run_id for run in runs)
    known = [scores[k] for k in run_ids if states[k] == "done"]
    values = [value for value in known if value is not None]
    is_whole = len(values) == len(runs)
    state: Any = "stopped" if stop else "done"
    if not is_whole:
        state = "failed" if len(known) < len(runs) else "diverged"
    epochs = max(run.science.recipe.last_epoch for run in runs)
    images = sum(images_until(run.science, None) for run in runs)
    value = fmean(values) if is_whole else None
    return Trial(proposal.method, proposal.number, number, proposal.settings, run_ids, epochs, images, value, state)


def _best_so_far(log: TuningLog) -> Iterable[str]:
    for method in dict.fromkeys(trial.method for trial in log.trials):
        trials, best = log.of_method(method), log.winner(method)
        if best is None:
            yield f"  {method}: {plural(len(trials), 'trial')}, none of which was trained to the end"
            continue
        settings = ", ".join(f"{key} {value}" for key, value in best.settings.items())
        yield f"  {method}: best so far {percent(best.value)}, trial {best.number} of {len(trials)}: {settings}"

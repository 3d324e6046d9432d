"""Differences between what two sweep files train, and between a sweep file and a run."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from harness.spec.lines import grouped
from harness.spec.science import Science
from harness.spec.science_differences import Differences, ScienceDifferences
from harness.spec.sweep_plan import Plan, Run


class RunPair(NamedTuple):
    """Runs of two plans with the same models, method and seed, and other settings."""

    first: Run
    second: Run
    differences: Differences


@dataclass(frozen=True)
class PlanDifferences:
    """Differences between the runs of two plans."""

    same: int
    only_first: tuple[Run, ...]
    only_second: tuple[Run, ...]
    changed: tuple[tuple[RunPair, ...], ...]  # each with the same differences; most runs first

    @property
    def changed_runs(self) -> int:
        return sum(map(len, self.changed))

    def __bool__(self) -> bool:
        return bool(self.only_first or self.only_second or self.changed)


def plan_differences(first: Plan, second: Plan) -> PlanDifferences:
    """Return how two plans differ, whatever their files' spelling.

    Runs of the same models, method and seed are paired so that few keys differ: those with the fewest first.
    """
    sciences = {run_id: run.science for run_id, run in (first.runs | second.runs).items()}
    compare = ScienceDifferences(sciences.get)
    others = grouped((run for k, run in second.runs.items() if k not in first.runs), lambda run: _kind(run.science))
    pairs: list[RunPair] = []
    mine = grouped((run for k, run in first.runs.items() if k not in second.runs), lambda run: _kind(run.science))
    for kind, runs in mine.items():
        pairs += _paired(runs, others.get(kind, ()), compare)
    paired = {run_id for pair in pairs for run_id in (pair.first.run_id, pair.second.run_id)}
    alike = grouped(pairs, lambda pair: repr(pair.differences.keys))
    return PlanDifferences(
        len(first.runs.keys() & second.runs.keys()),
        _left(first.runs, second.runs, paired),
        _left(second.runs, first.runs, paired),
        tuple(sorted(map(tuple, alike.values()), key=len, reverse=True)),
    )


def nearest_run(plan: Plan, science: Science, known: Mapping[str, Science]) -> RunPair | None:
    """Return a run with the fewest differences among those of a plan with its models, method and seed; None: no such.

    ``known``: sciences of runs that train teachers and are not in the plan. The plan's run is the pair's first.
    """
    compare = ScienceDifferences(lambda k: plan.runs[k].science if k in plan.runs else known.get(k))
    run = Run(science.run_id, science, "")
    candidates = [other for other in plan.runs.values() if _kind(other.science) == _kind(science)]
    return next(iter(_paired(candidates, [run], compare)), None)


def _kind(science: Science) -> Hashable:
    return science.student, science.teacher_model, science.method.use, science.seed


def _paired(first: Iterable[Run], second: Iterable[Run], compare: ScienceDifferences) -> list[RunPair]:
    second = list(second)
    possible = [RunPair(a, b, compare.between(a.science, b.science)) for a in first for b in second]
    possible.sort(key=lambda pair: len(pair.differences.keys))  # equal ones stay in the order of the files
    pairs: list[RunPair] = []
    paired: set[str] = set()
    for pair in possible:
        if paired.isdisjoint(run_ids := {pair.first.run_id, pair.second.run_id}):
            paired |= run_ids
            pairs.append(pair)
    return pairs


def _left(runs: Mapping[str, Run], others: Mapping[str, Run], paired: set[str]) -> tuple[Run, ...]:
    return tuple(run for run_id, run in runs.items() if run_id not in others and run_id not in paired)

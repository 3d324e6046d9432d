"""Estimates: the time that the runs of a plan will take, and the disk space."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from harness.console.terminal import say
from harness.errors import UserError
from harness.planning.cost import probe_results
from harness.planning.cost.devices import DeviceOf
from harness.planning.cost.interval import Interval
from harness.planning.cost.makespan import Job, makespan
from harness.planning.cost.pack import PackCost, PackCosts
from harness.planning.cost.past_run import PastRun
from harness.planning.cost.similar_runs import SimilarRuns
from harness.planning.plan import Planned
from harness.spec.lines import grouped


@dataclass(frozen=True)
class Basis:
    """The source of some runs' estimated times."""

    source: str  # "the same method and pair", "a probe", ...
    runs: int  # planned
    least: int  # past runs behind each of them: the smallest number
    most: int  # and the largest


@dataclass(frozen=True)
class Estimate:
    """Figures over the runs that something is known of; None where nothing is known of any."""

    elapsed_s: Interval | None  # until the last run has ended
    device_s: Interval | None  # seconds that jobs hold devices, times the number of devices
    unit: str  # of the devices: GPU or core
    left_bytes: Interval | None
    peak_bytes: float | None  # at most, while jobs run: with checkpoints, without methods' buffers
    bases: tuple[Basis, ...]
    runs_of_unknown_time: tuple[str, ...]  # their labels
    runs_of_unknown_size: tuple[str, ...]


def pack_costs(planned: Planned) -> PackCosts:
    """Return what the store's past runs and probes know. A damaged record is reported, and then no past run counts."""
    past_runs: list[PastRun] = []
    try:
        if planned.store.done_ids():
            from harness.planning.cost import history

            past_runs = history.read_history(planned.store, planned.plan.sweep.dataset.name)
    except UserError as e:
        say(f"past runs cannot be used for the estimate: {e}")
    return PackCosts(SimilarRuns(past_runs), probe_results.read_probe_results(planned.store))


def packs_to_do(planned: Planned, to_do: Collection[str]) -> list[tuple[tuple[str, ...], str | None]]:
    """Return each pack's runs to do, and the run that trains their teacher."""
    left = ((tuple(k for k in pack.run_ids if k in to_do), pack.needs) for pack in planned.plan.packs)
    return [(run_ids, needs) for run_ids, needs in left if run_ids]


def estimate(planned: Planned, to_do: Collection[str], at_once: int, device: DeviceOf, known: PackCosts) -> Estimate:
    """Return what the runs to do will take when ``at_once`` jobs run at the same time."""
    runs, packs = planned.plan.runs, packs_to_do(planned, to_do)
    cost_of: dict[Any, PackCost] = {}
    costs, timed = [], []
    for run_ids, needs in packs:
        pack = [runs[k].science for k in run_ids]
        pack_device = device(next((science for science in pack if science.teacher), pack[0]))  # as its job is placed
        methods = tuple(id(science.method) for science in pack)  # the runs of a pair and method share that object
        if methods not in cost_of:
            cost_of[methods] = known.cost(pack, pack_device)
        costs.append((run_ids, cost_of[methods]))
        if seconds := cost_of[methods].seconds:
            timed.append((run_ids, needs, seconds, pack_device))
    bounds = ("low", "mid", "high")
    lasts = {b: makespan([Job(ids, needs, getattr(s, b)) for ids, needs, s, _ in timed], at_once) for b in bounds}
    of_runs = [
        (runs[k].label, basis, sized)
        for run_ids, cost in costs
        for k, basis, sized in zip(run_ids, cost.bases, cost.is_sized, strict=True)
    ]
    by_source = grouped((basis for _, basis, _ in of_runs if basis), key=lambda basis: basis[0])
    left = Interval.sum(cost.left for _, cost in costs)
    most_held = sorted((cost.checkpoints for _, cost in costs), reverse=True)[:at_once]
    return Estimate(
        elapsed_s=Interval(**lasts) if timed else None,
        device_s=Interval.sum(seconds * on.units for _, _, seconds, on in timed) if timed else None,
        unit=device(runs[packs[0][0][0]].science).unit if packs else "core",
        left_bytes=left if left.mid else None,
        peak_bytes=left.high + sum(most_held) if left.mid else None,
        bases=tuple(Basis(source, len(bases), min(bases)[1], max(bases)[1]) for source, bases in by_source.items()),
        runs_of_unknown_time=tuple(label for label, basis, _ in of_runs if basis is None),
        runs_of_unknown_size=tuple(label for label, _, sized in of_runs if not sized),
    )

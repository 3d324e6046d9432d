"""Estimates: the time that the runs of a plan will take, and the disk space."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.console.terminal import say
from harness.errors import UserError
from harness.planning.cost import probe_results
from harness.planning.cost.interval import Interval
from harness.planning.cost.makespan import makespan
from harness.planning.cost.pack import PackCost, PackCosts
from harness.planning.cost.past_run import PastRun
from harness.planning.cost.plan import PlanCosts
from harness.planning.cost.similar_runs import SimilarRuns
from harness.planning.jobs import PlannedJob
from harness.planning.plan import Planned
from harness.spec.lines import grouped
from harness.spec.sweep_plan import Pack


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

            past_runs = history.read_history(planned.store, planned.plan.sweep.dataset.reference)
    except UserError as e:
        say(f"past runs cannot be used for the estimate: {e}")
    return PackCosts(SimilarRuns(past_runs), probe_results.read_probe_results(planned.store))


def estimate(jobs: Sequence[PlannedJob], at_once: int, costs: PlanCosts) -> Estimate:
    """Return what jobs will take of which ``at_once`` run at the same time."""
    runs = costs.planned.plan.runs
    packs: list[tuple[Pack, PackCost]] = []
    timed, held = [], []
    for job in jobs:
        of_packs, device = [costs.of_pack(pack) for pack in job.packs], costs.device_of(job.packs[0])
        packs.extend(zip(job.packs, of_packs, strict=True))
        # On a CPU a pack's checkpoints are gone when the next pack begins.
        held.append((sum if device.gpu else max)(cost.checkpoints for cost in of_packs))
        if seconds := costs.seconds(job.packs):
            timed.append((job, seconds, device))
    bounds = ("low", "mid", "high")
    lasts = {b: makespan([job.timed(getattr(s, b)) for job, s, _ in timed], at_once) for b in bounds}
    of_runs = [
        (runs[k].label, basis, sized)
        for pack, cost in packs
        for k, basis, sized in zip(pack.run_ids, cost.bases, cost.is_sized, strict=True)
    ]
    by_source = grouped((basis for _, basis, _ in of_runs if basis), key=lambda basis: basis[0])
    left = Interval.sum(cost.left for _, cost in packs)
    most_held = sorted(held, reverse=True)[:at_once]
    return Estimate(
        elapsed_s=Interval(**lasts) if timed else None,
        device_s=Interval.sum(seconds * on.units for _, seconds, on in timed) if timed else None,
        unit=costs.device_of(jobs[0].packs[0]).unit if jobs else "core",
        left_bytes=left if left.mid else None,
        peak_bytes=left.high + sum(most_held) if left.mid else None,
        bases=tuple(Basis(source, len(bases), min(bases)[1], max(bases)[1]) for source, bases in by_source.items()),
        runs_of_unknown_time=tuple(label for label, basis, _ in of_runs if basis is None),
        runs_of_unknown_size=tuple(label for label, _, sized in of_runs if not sized),
    )

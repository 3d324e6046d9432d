"""Estimates: the time that the runs of a plan will take, and the disk space."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.console.terminal import say
from harness.errors import UserError
from harness.planning.cost import probe_results
from harness.planning.cost.devices import DeviceOf
from harness.planning.cost.interval import Interval
from harness.planning.cost.makespan import Job, makespan
from harness.planning.cost.pack import PackCost, PackCosts
from harness.planning.cost.similar_runs import SimilarRuns
from harness.planning.plan import Planned


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
    try:
        found = []
        if planned.store.done_ids():
            from harness.planning.cost import history

            found = history.read_history(planned.store, planned.plan.sweep.dataset.name)
    except UserError as e:
        say(f"nothing is estimated from past runs: {e}")
        found = []
    return PackCosts(SimilarRuns(found), probe_results.read_probe_results(planned.store))


def packs_to_do(planned: Planned, to_do: Collection[str]) -> list[tuple[tuple[str, ...], str | None]]:
    """Return each pack's runs to do, and the run that trains their teacher."""
    left = ((tuple(k for k in pack.run_ids if k in to_do), pack.needs) for pack in planned.plan.packs)
    return [(run_ids, needs) for run_ids, needs in left if run_ids]


def estimate(planned: Planned, to_do: Collection[str], at_once: int, device: DeviceOf, known: PackCosts) -> Estimate:
    """Return what the runs to do will take when ``at_once`` jobs run at the same time."""
    runs, packs = planned.plan.runs, packs_to_do(planned, to_do)
    prices: dict[Any, PackCost] = {}
    priced, ranges = [], []
    for run_ids, needs in packs:
        pack = [runs[k].science for k in run_ids]
        same = tuple(id(science.method) for science in pack)  # the runs of a pair and method share that object
        if same not in prices:
            prices[same] = known.price(pack, device(pack[0]))
        priced.append((run_ids, prices[same]))
        if seconds := prices[same].seconds:
            ranges.append((run_ids, needs, seconds, device(pack[0])))
    bounds = ("low", "mid", "high")
    lasts = {b: makespan([Job(ids, needs, getattr(s, b)) for ids, needs, s, _ in ranges], at_once) for b in bounds}
    unsized = [
        runs[k].label for ids, price in priced for k, sized in zip(ids, price.is_sized, strict=True) if not sized
    ]
    left = Interval.sum(price.left for _, price in priced)
    most_held = sorted((price.checkpoints for _, price in priced), reverse=True)[:at_once]
    return Estimate(
        elapsed_s=Interval(**lasts) if ranges else None,
        device_s=Interval.sum(seconds * on.units for _, _, seconds, on in ranges) if ranges else None,
        unit=device(runs[packs[0][0][0]].science).unit if packs else "core",
        left_bytes=left if left.mid else None,
        peak_bytes=left.high + sum(most_held) if left.mid else None,
        bases=_bases(priced),
        runs_of_unknown_time=tuple(
            runs[k].label for ids, price in priced for k, basis in zip(ids, price.bases, strict=True) if basis is None
        ),
        runs_of_unknown_size=tuple(unsized),
    )


def _bases(priced: Iterable[tuple[Sequence[str], PackCost]]) -> tuple[Basis, ...]:
    counts: dict[str, list[int]] = defaultdict(list)
    for _, price in priced:
        for basis in price.bases:
            if basis:
                counts[basis[0]].append(basis[1])
    return tuple(Basis(source, len(found), min(found), max(found)) for source, found in counts.items())

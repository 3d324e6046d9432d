"""The cost of a pack: from past runs of the same kind, else from a probe of it, else from less similar runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.planning.cost import disk, probe_results
from harness.planning.cost.devices import Device
from harness.planning.cost.interval import Interval
from harness.planning.cost.past_run import image_counts
from harness.planning.cost.probe_results import ProbeResult
from harness.planning.cost.similar_runs import LEVELS, SAME_PAIR, RunEstimate, SimilarRuns, shape
from harness.spec.science import Science

PROBE = "a probe"
_EVALUATION = 1 / 3  # of a training step's time, which is a forward and a backward twice as long


@dataclass(frozen=True)
class PackCost:
    """The cost of one pack. Tuples are in the order of its runs."""

    seconds: Interval | None  # of a job of its own; None where nothing is known about any run
    start: Interval | None  # of these, what a job does once for all its packs; None where no job of the pair is known
    bases: tuple[tuple[str, int] | None, ...]  # the source of a time, and its number of past runs
    left: Interval  # bytes, of the runs whose size is known
    checkpoints: float
    is_sized: tuple[bool, ...]


@dataclass(frozen=True)
class PackCosts:
    """The costs of packs, from what the store knows."""

    similar_runs: SimilarRuns
    probes: Sequence[ProbeResult]

    def is_known(self, science: Science, device: Device) -> bool:
        """Return whether there are past runs of exactly this kind, so that a probe has nothing to add."""
        known = self.similar_runs.predict(science, device)
        return known is not None and known.level == 0

    def cost(self, pack: Sequence[Science], device: Device) -> PackCost:
        """Return a pack's cost. Its runs share one pass over the data and one teacher forward."""
        known = [self.similar_runs.predict(science, device) for science in pack]
        shapes = [shape(science) for science in pack]
        probe = None
        if any(k is None or k.level for k in known):
            probe = probe_results.largest_within(self.probes, shapes, device)
        probed = [probe is not None and text in probe.shapes for text in shapes]
        runs = list(zip(pack, known, probed, strict=True))
        rest = [k for _, k, measured in runs if k and not measured]
        parts = [_of_runs(rest, shared=probe is None)] if rest else []
        if probe:
            parts.append(_of_probe([s for s, _, measured in runs if measured], probe))
        bases = ((PROBE, 0) if measured else (LEVELS[k.level].label, k.runs) if k else None for _, k, measured in runs)
        weights = [disk.weights_bytes(s, k.evaluated_parameters if k else None) for s, k, _ in runs]
        sized = [(s, k, w) for s, k, w in zip(pack, known, weights, strict=True) if w is not None]
        held = sum(disk.checkpoint_bytes(w, k.method_parameters if k else 0, s.recipe.optimizer) for s, k, w in sized)
        logits = max(disk.logits_bytes(science) for science in pack)
        return PackCost(
            seconds=Interval.sum(parts) if parts else None,
            start=_start(probe) if probe else _start_of_jobs(known),
            bases=tuple(bases),
            left=Interval.sum([*(disk.bytes_left(s, w) for s, _, w in sized), Interval(logits, logits, logits)]),
            checkpoints=max(held, disk.CHECKPOINTS * probe.checkpoint_bytes if probe else 0.0),
            is_sized=tuple(w is not None for w in weights),
        )


def _of_runs(known: Sequence[RunEstimate], shared: bool) -> Interval:
    """Return the time of runs; ``shared``: with what is done once for the pack."""
    own = Interval.sum(k.own for k in known)
    once = [[k.data for k in known], [k.teacher for k in known], [k.overhead for k in known]]
    return own + Interval.sum(max(ranges, key=lambda r: r.mid) for ranges in once) if shared else own


def _of_probe(sciences: Sequence[Science], probe: ProbeResult) -> Interval:
    """Return the time of runs that a probe measured. Evaluations are assumed to take a third per image."""
    images, evaluated = (max(counts) for counts in zip(*map(image_counts, sciences), strict=True))
    per_image = 1 / sciences[0].recipe.batch_size
    per_step = Interval.of(probe.seconds_per_step, probe_results.WIDENING)
    return per_step * (per_image * (images + _EVALUATION * evaluated)) + _start(probe)


def _start(probe: ProbeResult) -> Interval:
    return Interval.of([probe.start_s], probe_results.WIDENING)


def _start_of_jobs(known: Sequence[RunEstimate | None]) -> Interval | None:
    """Return what jobs of the same pair took besides training."""
    starts = [k.overhead for k in known if k and k.level <= SAME_PAIR]
    return max(starts, key=lambda start: start.mid) if len(starts) == len(known) else None

"""What a pack takes: from past runs like its own, else from a probe of it, else from less like runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.estimating import disk, findings
from harness.estimating.devices import Device
from harness.estimating.findings import Finding
from harness.estimating.likeness import STEPS, Known, Likeness, shape
from harness.estimating.past import images_of
from harness.estimating.ranges import Range

Science = dict[str, Any]
PROBE = "a probe"
_EVALUATION = 1 / 3  # of a training step's time, which is a forward and a backward twice as long


@dataclass(frozen=True)
class Price:
    """Of a pack. Tuples are in the order of its runs."""

    seconds: Range | None  # of its job; None where nothing is known of any run
    bases: tuple[tuple[str, int] | None, ...]  # what a time is known from, and how many past runs that is
    left: Range  # bytes, of the runs whose size is known
    checkpoints: float
    is_sized: tuple[bool, ...]


@dataclass(frozen=True)
class Pricing:
    """Prices of packs, from what the store knows."""

    likeness: Likeness
    found: Sequence[Finding]

    def is_known(self, science: Science, device: Device) -> bool:
        """Whether past runs of the very same kind are there, so that a probe has nothing to add."""
        known = self.likeness.known(science, device)
        return known is not None and known.step == 0

    def price(self, pack: Sequence[Science], device: Device) -> Price:
        """A pack passes over the data and runs its teacher once for all its runs."""
        known = [self.likeness.known(science, device) for science in pack]
        shapes = [shape(science) for science in pack]
        finding = None
        if any(k is None or k.step for k in known):
            finding = findings.largest_within(self.found, shapes, device)
        probed = [finding is not None and text in finding.shapes for text in shapes]
        rest = [k for k, measured in zip(known, probed, strict=True) if k and not measured]
        parts = [_of_runs(rest, shared=finding is None)] if rest else []
        if finding:
            parts.append(_of_probe([s for s, measured in zip(pack, probed, strict=True) if measured], finding))
        bases = (
            (PROBE, 0) if measured else (STEPS[k.step].words, k.runs) if k else None
            for k, measured in zip(known, probed, strict=True)
        )
        weights = [
            disk.weights_bytes(s, k.evaluated_parameters if k else None) for s, k in zip(pack, known, strict=True)
        ]
        sized = [(s, k, w) for s, k, w in zip(pack, known, weights, strict=True) if w is not None]
        held = sum(disk.checkpoints(w, k.method_parameters if k else 0) for _, k, w in sized)
        kept = max(disk.logits(science) for science in pack)
        return Price(
            seconds=Range.sum(parts) if parts else None,
            bases=tuple(bases),
            left=Range.sum([*(disk.left(s, w) for s, _, w in sized), Range(kept, kept, kept)]),
            checkpoints=max(held, disk.CHECKPOINTS * finding.checkpoint_bytes if finding else 0.0),
            is_sized=tuple(w is not None for w in weights),
        )


def _of_runs(known: Sequence[Known], shared: bool) -> Range:
    """``shared``: with what is done once for the pack."""
    own = Range.sum(k.own for k in known)
    once = [[k.data for k in known], [k.teacher for k in known], [k.around for k in known]]
    return own + Range.sum(max(ranges, key=lambda r: r.mid) for ranges in once) if shared else own


def _of_probe(sciences: Sequence[Science], finding: Finding) -> Range:
    """Evaluations were not part of it: an image is taken to need a third of what it does in training."""
    images, evaluated = (max(counts) for counts in zip(*map(images_of, sciences), strict=True))
    per_image = 1 / sciences[0]["recipe"]["batch_size"]
    per_step = Range.of(finding.seconds_per_step, findings.WIDENING)
    start = Range.of([finding.start_s], findings.WIDENING)
    return per_step * (per_image * (images + _EVALUATION * evaluated)) + start

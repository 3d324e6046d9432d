"""How a member's steps run: each as it stands, or recorded and played again."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import torch
from torch import Tensor

from harness import rng
from harness.training.cuda.graph import Capture, CapturedStep, state_outside_tensors
from harness.training.cuda.streams import Streams
from harness.training.member import Member
from methods.base import Batch, Outputs, SampleRandom


@dataclass
class StepInputs:
    """What the members of a pack are given for a step."""

    images: Tensor  # (B', C, H, W) float, normalised: this process's share of the batch
    targets: Any  # classification: (B,) int64
    indices: Tensor  # (B,) int64
    teacher: Outputs
    place: int | None  # equal numbers: the tensors of two steps lie at the same addresses; None: nothing is known

    def versions(self) -> list[int]:
        """These change when a tensor is changed in place by what is not played from a graph."""
        given = (self.images, self.targets, self.indices, self.teacher)
        return [t._version for t in _tensors(given)]


@dataclass
class EpochTrackingBatch(Batch):
    """A batch that notes whether its epoch, on which few methods depend, is asked of it or of a part of it."""

    asked: set[str] = field(default_factory=set)

    def __getattribute__(self, name: str) -> Any:
        if name == "epoch":
            self.asked.add(name)
        return super().__getattribute__(name)


def _tensors(value: Any) -> Iterator[Tensor]:
    """All in a value made of sequences, mappings and dataclasses."""
    if isinstance(value, Tensor):
        yield value
        return
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


class StepRunner:
    """One member on its way through the steps of its pack."""

    def __init__(self, name: str, member: Member, streams: Streams, record: Capture | None):
        self._name, self._member, self._streams = name, member, streams
        modules = (*member.networks, member.distiller)
        self._recorded = CapturedStep(record, name, lambda: state_outside_tensors(modules), member.forget_gradients)
        self._random: SampleRandom | None = None
        self._depends_on_epoch = False

    def step(self, shared: StepInputs, epoch: int, at: int) -> None:
        """The step that is the ``at``-th of all, in 0-based ``epoch``."""
        member, count = self._member, len(shared.indices)
        seed = rng.stream_key(member.seed, at, "method")
        # For what draws from torch's own random numbers, such as dropout.
        torch.manual_seed(rng.stream_key(member.seed, at, "torch"))
        member.begin_step(at)
        baked = (member.settings, epoch if self._depends_on_epoch else None, shared.place)
        played = shared.place is not None and self._recorded.plays(baked)
        # A method that may yet turn out to change what is shared runs while no other member reads that.
        with self._streams.fork(self._name, alone=not played):
            if shared.place is None:
                batch = self._batch(shared, seed, None, epoch)
                member.compute(batch, shared.teacher, count)
            else:
                batch = self._batch(shared, seed, self._random, epoch)
                self._random = batch.random
                with member.watch.part("student") if played else nullcontext():
                    self._recorded(baked, lambda: member.compute(batch, shared.teacher, count), self._random.generator)
            self._depends_on_epoch |= bool(batch.asked)
        member.count(count)

    def _batch(self, shared: StepInputs, seed: int, random: SampleRandom | None, epoch: int) -> EpochTrackingBatch:
        """``random``: what is used again, at the address that recorded steps read."""
        member, indices = self._member, shared.indices
        if not member.task.whole_batch:
            indices = indices[member.ranks.rows(len(indices))]
        if random is None:
            random = member.task.random(seed, indices, member.device)
        else:
            random.reseed(seed)
        return EpochTrackingBatch(shared.images, shared.targets, indices, random, epoch + 1)

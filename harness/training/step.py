"""A training step, from a batch of images to the optimiser.

``SharedForward`` does what a pack needs once: it places the batch and runs the teacher. ``StepRunner.run`` then takes
each member's step: ``compute_step`` goes from micro-batches over forward passes, losses and backward to the optimiser.
"""

import copy
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from harness import rng
from harness.data.load.loader import Extras, LoadedBatch
from harness.models.taps import ConvNet
from harness.training.cuda.graph import Capture, CapturedStep, StaticInputs, state_outside_tensors
from harness.training.cuda.streams import Streams
from harness.training.distributed.ranks import BatchPart, Ranks
from harness.training.member import Member
from harness.training.outputs import gather_outputs, map_outputs, tensors_in, to_float32
from harness.training.precision import autocast
from harness.training.teacher import Teacher
from harness.training.teacher_logits import CachedLogits
from methods.base import Batch, Outputs, SampleRandom

Rows = TypeVar("Rows", Tensor, list[Any])


@dataclass
class StepInputs:
    """A step's batch and the teacher's outputs for it, shared by all members of a pack."""

    images: Tensor  # (B', C, H, W) float, normalised: this rank's rows of the batch
    targets: Any  # of a classifier (B,) int64, of a detector what each image of this rank shows
    indices: Tensor  # (B,) int64 positions in the training set
    teacher: Outputs
    addresses: int | None  # equal numbers: the tensors lie at equal addresses; None: anywhere
    extras: Extras = Extras()

    def versions(self) -> list[int]:
        """Return torch's version counters: an in-place change outside of a replayed graph raises them."""
        return [t._version for t in tensors_in((self.images, self.targets, self.indices, self.teacher, self.extras))]


@dataclass
class EpochTrackingBatch(Batch):
    """A batch that notes whether anything reads its epoch, which a captured step bakes in."""

    attributes_read: set[str] = field(default_factory=set)  # shared by the batch's micro-batches

    def __getattribute__(self, name: str) -> Any:
        if name == "epoch":
            self.attributes_read.add(name)
        return super().__getattribute__(name)


class SharedForward:
    """The part of a step that all members of a pack share: the placing of the batch and the teacher's forward pass."""

    def __init__(
        self, teacher: Teacher | None, cached_logits: CachedLogits | None, capture: Capture | None, batch_size: int
    ):
        self._teacher, self._cached_logits, self._batch_size = teacher, cached_logits, batch_size
        self._captures = capture is not None
        self._static = StaticInputs()
        self._forward = CapturedStep[Outputs](capture, "the teacher", lambda: None, lambda: None)

    def __call__(self, batch: LoadedBatch, step: int, members: Sequence[Member]) -> StepInputs:
        """Return the inputs of the ``step``-th step of an epoch; full batches lie where captured steps read them."""
        images, targets, indices, *more = batch
        extras = more[0] if more else Extras()
        taps_by_member = [m.teacher_taps for m in members if m.teacher_taps is not None]
        taps = frozenset(tap for taps in taps_by_member for tap in taps)
        precision = members[0].recipe.precision if members else "float32"
        teacher = self._teacher if taps_by_member else None
        view_taps = _view_taps([m for m in members if m.teacher_taps is not None])

        def forward() -> Outputs:
            if teacher is None:
                return Outputs(images.new_empty(0), images.new_empty(0))
            if self._cached_logits is None:
                outputs = teacher(images, taps, precision, len(indices))
                for view, of_view in view_taps.items():
                    outputs.views[view] = teacher(extras.views[view], of_view, precision, len(indices))
                return outputs
            logits = self._cached_logits(step, indices, lambda: teacher(images, taps, precision, len(indices)).logits)
            return Outputs(logits, images.new_empty(0))

        if not self._captures or len(indices) < self._batch_size:
            return StepInputs(images, targets, indices, forward(), None, extras)
        static = self._static.load({"images": images, "targets": targets, "indices": indices})
        images, targets, indices = static["images"], static["targets"], static["indices"]
        extras = extras.mapped(lambda name, x: self._static.load({name: x})[name])
        addresses = (images.data_ptr(), *(x.data_ptr() for x in extras.views.values()))
        baked_in = (teacher is None, taps, tuple(view_taps.items()), precision, addresses)
        outputs = forward() if self._cached_logits else self._forward(baked_in, forward)
        outputs = map_outputs(outputs, lambda name, x: self._static.load({name: x})[name])
        return StepInputs(images, targets, indices, outputs, self._static.moves, extras)


def _view_taps(members: Sequence[Member]) -> dict[str, frozenset[str]]:
    """Return the further views that members read, with the teacher's taps of them."""
    taps: dict[str, frozenset[str]] = {}
    for member in members:
        for view in member.views:
            taps[view] = taps.get(view, frozenset()) | frozenset(member.teacher_view_taps)
    return taps


class StepRunner:
    """A member's training steps, taken eagerly or by replaying a captured CUDA graph."""

    def __init__(self, name: str, member: Member, streams: Streams, capture: Capture | None):
        self._name, self._member, self._streams = name, member, streams
        outside_state = partial(state_outside_tensors, (*member.networks, member.distiller))
        self._compute = CapturedStep[Tensor](capture, name, outside_state, member.engine.drop_gradients)
        self._static_random: SampleRandom | None = None
        self._depends_on_epoch = False

    def run(self, inputs: StepInputs, epoch: int, step: int) -> bool:
        """Take the ``step``-th step of the whole training, which is in 0-based ``epoch``.

        Return whether it replayed a graph, so that no Python ran that could have changed ``inputs``.
        """
        member, batch_size = self._member, len(inputs.indices)
        member.begin_step(step)
        baked_in = None
        if inputs.addresses is not None:
            read_epoch = epoch if self._depends_on_epoch else None
            baked_in = (member.in_first_stage, member.lr, read_epoch, inputs.addresses)
        replays = self._compute.replays(baked_in)
        if not replays:  # for what draws from torch's own numbers, such as dropout, which is never captured
            rng.seed_torch(rng.stream_key(member.seed, step, "torch"))
        # A method that may yet turn out to change what is shared runs while no other member reads that.
        with self._streams.fork(self._name, exclusive=not replays):
            batch = self._batch(inputs, rng.stream_key(member.seed, step, "method"), epoch)
            with member.watch.part("student") if replays else nullcontext():
                work = partial(compute_step, member, batch, inputs.teacher, batch_size)
                self._compute(baked_in, work, batch.random.generator)
            self._depends_on_epoch |= bool(batch.attributes_read)
        member.count_step(batch_size)
        return replays

    def _batch(self, inputs: StepInputs, seed: int, epoch: int) -> EpochTrackingBatch:
        member, indices = self._member, inputs.indices
        if not member.task.whole_batch:
            indices = indices[member.ranks.rows(len(indices))]
        if inputs.addresses is None:
            random = member.task.random(seed, indices, member.device)
        elif self._static_random is None:
            random = self._static_random = member.task.random(seed, indices, member.device)
        else:
            random = self._static_random
            random.reseed(seed)
        extras = inputs.extras
        return EpochTrackingBatch(
            inputs.images, inputs.targets, indices, random, epoch + 1, extras.target_probs, extras.views,
            member.recipe.label_smoothing or 0.0,
        )  # fmt: skip


def compute_step(member: Member, batch: Batch, teacher: Outputs, batch_size: int) -> Tensor:
    """Do a step's work on the device, with ``batch_size`` images on all ranks; return the total loss, detached.

    Nothing here waits for the device, and from the second call on nothing but the values of tensors changes: so it can
    be captured as a CUDA graph.
    """
    losses = [
        _add_gradients(member, *micro_batch, batch_size)
        for micro_batch in micro_batches(batch, teacher, member.recipe.accumulate, member.loss_ranks)
    ]
    with member.watch.part("student"):
        member.engine.step(member.lr)
        if member.has_local_loss:
            _average_buffers(member, len(batch.indices) / batch_size)
        if member.ema:
            member.ema.update()
    return torch.stack(losses).sum()


def micro_batches(
    batch: Batch, teacher: Outputs, accumulate: int, ranks: Ranks
) -> Iterator[tuple[BatchPart, Batch, Outputs]]:
    """Yield ``accumulate`` micro-batches with the teacher's outputs for them; one for each image if there are fewer."""
    count = len(batch.indices)
    parts = min(accumulate, count)
    for part in (BatchPart(index, parts) for index in range(parts)):
        micro = copy.copy(batch)
        first = ranks.rows(count, part).start - ranks.rows(count).start
        mine = slice(first, None, part.parts)
        micro.images = _rows(batch.images, mine)
        micro.views = {name: _rows(images, mine) for name, images in batch.views.items()}
        if batch.target_probs is not None:
            micro.target_probs = _rows(batch.target_probs, part.rows)
        micro.targets, micro.indices = _rows(batch.targets, part.rows), _rows(batch.indices, part.rows)
        micro.random = batch.random.part(part.rows)
        yield part, micro, map_outputs(teacher, lambda _, x, rows=part.rows: _rows(x, rows))  # type: ignore[misc]


def _add_gradients(member: Member, part: BatchPart, batch: Batch, teacher: Outputs, batch_size: int) -> Tensor:
    """Add the gradients of a micro-batch, a part of the batch; return its share of the total loss, detached."""
    images = len(batch.indices)
    with member.watch.part("student"):
        student = _student_forward(member, batch, batch_size, part)
    if member.peer is not None:
        with member.watch.part("teacher"):
            taps, view_taps = member.main_taps, member.teacher_view_taps
            teacher = _forward(member, member.peer, batch, taps, view_taps, batch_size, part)
    with member.watch.part("method"):
        terms, losses = _losses(member, batch, student, teacher)
        shares = [loss * (images / batch_size) for loss in losses]
    with member.watch.part("student"):
        member.engine.backward(shares, last=part.index + 1 == part.parts)
    member.add_losses({**terms, "total": _total(losses)}, images)
    return _total(shares).detach()


def _student_forward(member: Member, batch: Batch, batch_size: int, part: BatchPart) -> Outputs:
    """Run the student; in the first stage no further than to its maps."""
    if not member.in_first_stage:
        taps, view_taps = member.distiller.student_taps, member.distiller.student_view_taps
        return _forward(member, member.student, batch, taps, view_taps, batch_size, part)
    assert isinstance(member.student, ConvNet), "methods with a first stage are for classifiers"
    empty = batch.images.new_empty(0)
    with autocast(member.device, member.recipe.precision):
        outputs = Outputs(empty, empty, member.student.maps(batch.images, member.first_stage.student_taps))
    return gather_outputs(to_float32(outputs), member.loss_ranks, batch_size, part)


def _forward(
    member: Member,
    network: nn.Module,
    batch: Batch,
    taps: Collection[str],
    view_taps: Collection[str],
    batch_size: int,
    part: BatchPart,
) -> Outputs:
    """Run a network on this rank's images; return its outputs for all images that the loss is computed on.

    It runs on each view by itself, as MLKD does (repository Jin-Ying/Multi-Level-Logit-Distillation,
    mdistiller/distillers/KD_ours.py): batch norms see one view at a time.
    """
    with autocast(member.device, member.recipe.precision):
        outputs = member.task.run(network, batch, taps)
        for view in member.views:
            of_view = copy.copy(batch)
            of_view.images = batch.views[view]
            outputs.views[view] = member.task.run(network, of_view, view_taps)
    return gather_outputs(to_float32(outputs), member.loss_ranks, batch_size, part)


def _losses(member: Member, batch: Batch, student: Outputs, teacher: Outputs) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Return the terms by name, unweighted, and the total loss; for DOT in two parts: ``ce`` and all the others."""
    if member.in_first_stage:
        first_terms = member.distiller.first_terms(batch, student, teacher)
        member.check_terms(first_terms)
        return dict(first_terms), [_total(list(first_terms.values()))]
    task_losses = member.task.losses(student, batch, member.recipe)
    aligned, teacher = member.task.align(member.distiller, batch, student, teacher)
    returned = member.distiller(aligned, student, teacher)
    member.check_terms(returned)
    terms = {"ce": task_losses["ce"], **returned}
    weighted = {name: weight * terms[name] for name, weight in member.loss_weights.items() if weight}
    parts = [[weighted.pop("ce")]] if member.recipe.optimizer == "dot" else []
    return {**task_losses, **terms}, [_total(part) for part in (*parts, list(weighted.values()))]


def _total(terms: list[Tensor]) -> Tensor:
    """Return the sum of terms, some of which may have one dimension of one number."""
    if any(term.dim() for term in terms):
        terms = [term.reshape(()) for term in terms]
    return torch.stack(terms).sum() if len(terms) > 1 else terms[0]


def _average_buffers(member: Member, weight: float) -> None:
    """Give a method that sees only one rank's images the mean of its buffers over the ranks."""
    buffers = [b for b in member.distiller.buffers() if b.is_floating_point()]
    for buffer in buffers:
        buffer *= weight
    if buffers:
        member.ranks.all_reduce_sum(buffers)


def _rows(x: Rows, rows: slice) -> Rows:
    """Return rows without gaps between them in memory, which each convolution would close again."""
    return x[rows].clone() if isinstance(x, Tensor) and rows.step != 1 else x[rows]

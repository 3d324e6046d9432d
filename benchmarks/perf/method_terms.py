"""Bench of each method's terms, forward and backward, against the same terms written plainly in PyTorch.

Outputs of teacher and student are random tensors with the shapes of wrn_40_2 -> wrn_16_2 at batch 64, in the memory
layout of training; a detector's method gets maps of a feature pyramid. Both sides have the same trained layers and
random numbers, and must give the same loss. The ratio is the largest of the methods'.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from benchmarks.perf.cifar import BATCH, CLOCK, INFO, STUDENT, TEACHER, clock, fresh, targets
from benchmarks.perf.further_plain_terms import FURTHER_PLAIN
from benchmarks.perf.measurement import emit, in_turn, ratio_of_pairs, say
from benchmarks.perf.plain_terms import FIRST, PLAIN, Plain
from harness.models.taps import describe_taps
from harness.spec import methods
from harness.training import host_memory
from harness.training.trained_model import method_class
from methods.base import Batch, Distiller, FirstStage, Outputs, SampleRandom, TapSpec
from methods.detection import DetectionBatch, DetectorOutputs, Objects

MAIN = PLAIN | FURTHER_PLAIN
TARGET = 1.15
ROUNDS, BUDGET_S = 60, 10.0  # of a method
SIDE_S = 0.005  # the least time of a side in a round
PYRAMID, CHANNELS, IMAGES, OBJECTS = {"p3": 40, "p4": 20, "p5": 10, "p6": 5}, 256, 2, 8
STRIDE = 8  # pixels of a position of p3


@dataclass
class Terms:
    """A method with a step's inputs, and its loss written plainly."""

    method: Distiller
    weights: dict[str, float]
    plain: Plain
    batch: Batch
    student: Outputs
    teacher: Outputs
    first_stage: bool = False

    @property
    def leaves(self) -> list[Tensor]:
        """Return what the loss may have a gradient for."""
        tensors = [t for outputs in (self.student, self.teacher) for t in tensors_of(outputs)]
        return [t for t in (*tensors, *self.method.parameters()) if t.requires_grad]

    def loss(self) -> Tensor:
        """Return the weighted sum of the method's terms."""
        if self.first_stage:
            return reduce(add, self.method.first_terms(self.batch, self.student, self.teacher).values())
        terms = self.method(self.batch, self.student, self.teacher)
        weighted = [weight * terms[name] for name, weight in self.weights.items() if weight and name in terms]
        return reduce(add, weighted)

    def plain_loss(self) -> Tensor:
        return self.plain(self.method, self.batch, self.student, self.teacher)

    def gradients(self, loss: Callable[[], Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return a loss and its gradients; one that does not reach a leaf is 0."""
        self.batch.random.reseed(0)
        value, leaves = loss(), self.leaves
        return value.detach(), list(torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True))

    def check(self, tolerance: float) -> None:
        """Raise AssertionError unless both sides have the same loss and gradients, relative to the largest values.

        The gradient of a bias before a batch norm is 0 but for rounding.
        """
        state = copy.deepcopy(self.method.state_dict())
        own, own_gradients = self.gradients(self.loss)
        self.method.load_state_dict(state)
        plain, plain_gradients = self.gradients(self.plain_loss)
        self.method.load_state_dict(state)
        assert abs(own - plain) <= tolerance * abs(plain), f"{own} is not {plain}"
        largest = max(b.abs().max() for b in plain_gradients)
        for a, b in zip(own_gradients, plain_gradients, strict=True):
            assert (a - b).abs().max() <= tolerance * max(b.abs().max(), largest / 1000), f"{a} is not {b}"

    def seconds(self, loss: Callable[[], Tensor], repeats: int) -> float:
        """Return the time of a forward and a backward pass."""
        leaves = self.leaves
        began = clock()
        for _ in range(repeats):
            self.batch.random.reseed(0)
            torch.autograd.grad(loss(), leaves, allow_unused=True)
        return (clock() - began) / repeats


def tensors_of(outputs: Outputs) -> list[Tensor]:
    of_views = [t for view in outputs.views.values() for t in tensors_of(view)]
    return [outputs.logits, outputs.embedding, *outputs.features.values(), *of_views]


def classifier_terms(
    name: str, spec_s: TapSpec, spec_t: TapSpec, count: int, train_targets: Tensor, dtype: torch.dtype = torch.float32
) -> list[Terms]:
    """Return the terms of a classifiers' method: of its main stage and of its first stage, if their losses are known.

    Both models' outputs for ``count`` images are random.
    """
    info = methods.describe_method(name)
    method = method_class(name)(spec_s, spec_t)
    method.setup(train_targets)
    if method.teacher_pass:
        similarity = torch.rand(spec_t.num_classes, spec_t.num_classes)
        method.use_teacher_pass((similarity + similarity.T) / 2)
    method.to(dtype)
    first = method.first_stage or FirstStage(0)
    draw = torch.Generator().manual_seed(0)

    def outputs(spec: TapSpec, taps: set[str], grad: bool, views: Sequence[str] = ()) -> Outputs:
        def rows(*shape: int) -> Tensor:
            return torch.randn(count, *shape, generator=draw).to(dtype)

        def feature_map(tap: str) -> Tensor:
            x = rows(spec.channels[tap], *spec.sizes[tap])
            return (x if tap.endswith(".preact") else x.relu()).contiguous(memory_format=torch.channels_last)

        features = {tap: feature_map(tap).requires_grad_(grad) for tap in sorted(taps)}
        logits, embedding = (3 * rows(spec.num_classes)), rows(spec.embedding_dim).relu()
        of_views = {view: outputs(spec, set(), grad) for view in views}
        return Outputs(logits.requires_grad_(grad), embedding.requires_grad_(grad), features, views=of_views)

    student = outputs(spec_s, {*method.student_taps, *first.student_taps}, True, method.views)
    teacher = outputs(spec_t, {*method.teacher_taps, *first.teacher_taps}, method.peer is not None, method.views)
    rows = torch.arange(count)
    batch = Batch(torch.zeros(0), train_targets[:count], rows, SampleRandom(0, count))
    parts = ((MAIN, False), (FIRST, True))
    return [
        Terms(method, info.weights, plain[name], batch, student, teacher, is_first)
        for plain, is_first in parts
        if name in plain
    ]


def detector_terms(
    name: str, pyramid: dict[str, int], channels: int, dtype: torch.dtype = torch.float32
) -> list[Terms]:
    """Return the terms of a detectors' method on random maps of square levels, with three anchors at each position."""
    sizes = {level: (side, side) for level, side in pyramid.items()}
    spec = TapSpec(dict.fromkeys(pyramid, channels), sizes, 1, 1, pooled=False)
    method = method_class(name)(spec, spec).to(dtype)
    draw = torch.Generator().manual_seed(0)
    anchors, image = {}, STRIDE * max(pyramid.values())
    for level, side in pyramid.items():
        stride = image / side
        centre = (torch.arange(side) + 0.5) * stride
        middle = torch.stack(torch.meshgrid(centre, centre, indexing="xy"), -1)[:, :, None]
        half = torch.tensor([[2.0, 2.0], [1.4, 2.8], [2.8, 1.4]]) * stride
        anchors[level] = torch.cat([middle - half, middle + half], -1).to(dtype)

    def outputs(grad: bool) -> DetectorOutputs:
        maps = {level: torch.randn(IMAGES, channels, *size, generator=draw).to(dtype) for level, size in sizes.items()}
        features = {
            level: x.contiguous(memory_format=torch.channels_last).requires_grad_(grad) for level, x in maps.items()
        }
        return DetectorOutputs(torch.zeros(0, dtype=dtype), torch.zeros(0, dtype=dtype), features, anchors=anchors)

    corners = torch.rand(IMAGES, OBJECTS, 2, generator=draw) * image / 2
    boxes = torch.cat([corners, corners + image / 8 + torch.rand(corners.shape, generator=draw) * image / 4], -1)
    labels = torch.ones(OBJECTS, dtype=torch.int64)
    objects = [Objects(b.to(dtype), labels, (image, image)) for b in boxes]
    empty = torch.zeros(0, dtype=torch.int64)
    random = SampleRandom(0, IMAGES)
    batch = DetectionBatch(torch.zeros(IMAGES), empty, torch.arange(IMAGES), random, objects=objects)
    weights = methods.describe_method(name).weights
    return [Terms(method, weights, MAIN[name], batch, outputs(True), outputs(False))]


def all_terms() -> dict[str, Terms]:
    """Return every method's terms by its name; a first stage's by ``NAME first``."""
    spec_s, spec_t = (describe_taps(fresh(model), INFO.image_shape) for model in (STUDENT, TEACHER))
    labels, terms = targets(), {}
    for name in sorted(MAIN.keys() | FIRST.keys()):
        if "classification" in methods.describe_method(name).defined_for:
            of_method = classifier_terms(name, spec_s, spec_t, BATCH, labels)
        else:
            of_method = detector_terms(name, PYRAMID, CHANNELS)
        terms |= {f"{name} first" if t.first_stage else name: t for t in of_method}
    return terms


def side(terms: Terms, loss: Callable[[], Tensor]) -> Callable[[], float]:
    """Return a measurement that repeats short passes."""
    terms.seconds(loss, 2)
    return partial(terms.seconds, loss, math.ceil(SIDE_S / terms.seconds(loss, 2)))


def main() -> None:
    host_memory.retain_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    spreads: dict[str, Any] = {}
    for name, of_method in all_terms().items():
        of_method.check(2e-3)
        sides = {"ours": side(of_method, of_method.loss), "plain": side(of_method, of_method.plain_loss)}
        seconds = in_turn(sides, ROUNDS, BUDGET_S, progress=False)
        ratio, spread = ratio_of_pairs(seconds["ours"], seconds["plain"])
        spreads[name] = {"ratio": round(ratio, 3), "ms": round(1000 * min(seconds["ours"]), 3), **spread}
        say(
            f"  {name:10} {spreads[name]['ms']:9.3f} ms   {ratio:6.3f} x plain   ({spread['median_of_pairs']} of pairs)"
        )
    largest = max(spreads, key=lambda name: spreads[name]["ratio"])
    detail = {"pair": f"{TEACHER} -> {STUDENT}", "batch": BATCH, "threads": 1, "clock": CLOCK, "largest": largest,
              "methods": spreads}  # fmt: skip
    emit("method_terms", spreads[largest]["ratio"], TARGET, detail, better="lower")


if __name__ == "__main__":
    main()

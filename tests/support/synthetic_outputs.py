"""Synthetic outputs of a teacher and a student, and a method's loss on them."""

import torch
from torch import Tensor

from methods.base import CAM, Batch, Distiller, Head, Outputs, SampleRandom, TapSpec

BATCH, CLASSES = 8, 5
TARGETS = torch.arange(BATCH) % CLASSES


def spec(widths: list[int], sizes: list[tuple[int, int]], embedding_dim: int) -> TapSpec:
    """Return taps for stages of these widths and sizes, each with its pre-activation, and a head on the last one."""
    taps = [f"stage{i}{end}" for i in range(1, len(widths) + 1) for end in ("", ".preact")]
    twice = [(c, size) for c, size in zip(widths, sizes, strict=True) for _ in range(2)]
    weight = torch.randn(CLASSES, widths[-1], generator=torch.Generator().manual_seed(0))
    return TapSpec(
        {tap: c for tap, (c, _) in zip(taps, twice, strict=True)} | {CAM: CLASSES},
        {tap: size for tap, (_, size) in zip(taps, twice, strict=True)} | {CAM: sizes[-1]},
        embedding_dim,
        CLASSES,
        Head(f"stage{len(widths)}", weight, torch.zeros(CLASSES)),
    )


STUDENT = spec([6, 7, 9], [(8, 8), (6, 6), (4, 5)], 9)
TEACHER = spec([6, 7, 9], [(8, 8), (8, 6), (5, 5)], 11)


def outputs(taps: TapSpec, seed: int, scale: float = 1.0, grad: bool = False) -> Outputs:
    """Return a model's outputs for the batch's images and for a view "strong" of them."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return (torch.randn(BATCH, *shape, generator=g) * scale).requires_grad_(grad)

    maps = {tap: draw(c, *taps.sizes[tap]) for tap, c in taps.channels.items() if tap != CAM}
    images = Outputs(draw(taps.num_classes), draw(taps.embedding_dim), maps)
    images.views["strong"] = Outputs(draw(taps.num_classes), draw(taps.embedding_dim))
    if CAM in taps.channels:  # last, so that it changes none of the others
        maps[CAM] = draw(taps.channels[CAM], *taps.sizes[CAM])
    return images


def make_batch(targets: Tensor = TARGETS, **epoch: float) -> Batch:
    return Batch(torch.zeros(0), targets, torch.arange(len(targets)), SampleRandom(0, len(targets)), **epoch)


def total(method: Distiller, student: Outputs, teacher: Outputs, targets: Tensor = TARGETS) -> Tensor:
    """Return the weighted loss without cross-entropy, plus the loss of a first stage."""
    terms = method(make_batch(targets), student, teacher)
    assert terms.keys() | {"ce"} == {*method.weights, *method.diagnostics, "ce"}
    first = method.first_terms(make_batch(targets), student, teacher) if method.first_stage else {}
    assert all(value.shape == () for value in (*terms.values(), *first.values()))
    weighted = [weight * terms[name] for name, weight in method.weights.items() if name != "ce"]
    return torch.stack([*weighted, *first.values()]).sum()

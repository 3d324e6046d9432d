"""mixup and CutMix: each image of a batch is mixed with another one of it, and so are their classes.

As timm's ``Mixup`` does in its batch mode (timm 1.0, timm/data/mixup.py, which DeiT uses too): one share for the whole
batch, and an image's partner is the one that the reversed batch has in its place. The share, the box and whether a
batch is mixed are pure functions of (seed, epoch, step); they are drawn on the host, so that nothing waits for a
device.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from harness import rng
from harness.spec.schema import Recipe

_AT_ONCE = 64  # random numbers, more than nearly any step needs


class Box(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True)
class Mix:
    """The mix of one batch."""

    classes: int
    share: float = 1.0  # of each image itself; its partner has the rest
    box: Box | None = None  # of CutMix: what is taken from the partner; None: mixup

    def images(self, images: Tensor, partners: Tensor) -> Tensor:
        """Return images (B, C, H, W) float32 mixed with their partners; ``images`` may be changed."""
        if self.box is None:
            return images.mul_(self.share).add_(partners, alpha=1 - self.share)
        top, bottom, left, right = self.box
        images[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
        return images

    def probs(self, targets: Tensor) -> Tensor:
        """Return the classes' shares, (B, classes) float32, of a whole batch with targets (B,)."""
        own = torch.zeros(len(targets), self.classes, device=targets.device).scatter_(1, targets[:, None], 1.0)
        return own * self.share + own.flip(0) * (1 - self.share)

    def larger_share(self, targets: Tensor) -> Tensor:
        """Return the class (B,) that has the larger share of each image of a whole batch."""
        return targets if self.share >= 0.5 else targets.flip(0)


@dataclass(frozen=True)
class Mixing:
    """A recipe's keys about mixing."""

    mixup: float  # alpha of Beta(alpha, alpha), of which the share is drawn; 0: never
    cutmix: float
    probability: float  # that a batch is mixed at all
    switch: float  # with both: probability of CutMix
    classes: int

    @classmethod
    def of(cls, recipe: Recipe, classes: int) -> "Mixing | None":
        """Return a recipe's mixing; None where it has none."""
        if not recipe.mixup and not recipe.cutmix:
            return None
        return cls(recipe.mixup, recipe.cutmix, recipe.mix_probability, recipe.mix_switch, classes)

    def draw(self, seed: int, epoch: int, step: int, height: int, width: int) -> Mix:
        """Return how the ``step``-th batch of an epoch is mixed, of images of this size."""
        draws = _uniform(seed, epoch, step)
        mixed, switched = next(draws) < self.probability, next(draws) < self.switch
        if not mixed:
            return Mix(self.classes)
        if not self.cutmix or self.mixup and not switched:
            return Mix(self.classes, _beta(self.mixup, draws))
        share, box = _cut(_beta(self.cutmix, draws), height, width, draws)
        return Mix(self.classes, share, box)


def _cut(share: float, height: int, width: int, draws: Iterator[float]) -> tuple[float, Box]:
    """Return the share of an image outside of CutMix's box, which has about 1 - share of it, and the box."""
    side = math.sqrt(1 - share)
    tall, wide = int(height * side), int(width * side)
    row, column = int(next(draws) * height), int(next(draws) * width)
    top, bottom = max(row - tall // 2, 0), min(row + (tall + 1) // 2, height)
    left, right = max(column - wide // 2, 0), min(column + (wide + 1) // 2, width)
    return 1 - (bottom - top) * (right - left) / (height * width), Box(top, bottom, left, right)


def _beta(alpha: float, draws: Iterator[float]) -> float:
    """Draw from Beta(alpha, alpha): the ratio of two gamma variables, by their logarithms."""
    difference = _log_gamma_variable(alpha, draws) - _log_gamma_variable(alpha, draws)
    return 1 / (1 + math.exp(-difference)) if difference > -700 else 0.0


def _log_gamma_variable(alpha: float, draws: Iterator[float]) -> float:
    """Draw the logarithm of a Gamma(alpha, 1) variable.

    By Marsaglia and Tsang 2000, "A simple method for generating gamma variables", with alpha raised by 1.
    """
    d = alpha + 1 - 1 / 3
    c = 1 / math.sqrt(9 * d)
    boost = math.log(next(draws)) / alpha
    while True:
        normal = math.sqrt(-2 * math.log(next(draws))) * math.cos(2 * math.pi * next(draws))
        u, v = next(draws), (1 + c * normal) ** 3
        if v > 0 and math.log(u) < normal**2 / 2 + d - d * v + d * math.log(v):
            return math.log(d * v) + boost


def _uniform(seed: int, epoch: int, step: int) -> Iterator[float]:
    """Yield numbers in (0, 1), all that a step may need."""
    for block in count():
        indices = torch.arange(_AT_ONCE) + (step * 2**20 + block * _AT_ONCE)
        yield from ((bits + 0.5) * 2.0**-63 for bits in rng.random_bits(seed, epoch, "mix", indices).tolist())

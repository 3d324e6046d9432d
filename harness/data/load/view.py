"""The views of a training image: how each is cropped, flipped and augmented."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from harness.spec.schema import Recipe
from harness.spec.tasks.classification import view_recipes

# Called with images or pixels (B, C, H, W), seed, epoch, indices (B,) and the stream of random numbers
Augmentation = Callable[[Tensor, int, int, Tensor, str], Tensor]


@dataclass(frozen=True)
class View:
    """One view: what is seen of an image, and what happens to its pixels.

    ``stream`` tells its random numbers from those of other views; it is empty for the images of a batch itself.
    """

    crop_padding: int = 0
    crop_area: tuple[float, float] | None = None
    flip: bool = False
    augment: Augmentation | None = None  # of pixels, before they are normalised
    erase: Augmentation | None = None  # of normalised images
    stream: str = ""

    @classmethod
    def of(cls, recipe: Recipe, stream: str = "") -> "View":
        """Return the view that a recipe's keys describe."""
        augment = _augmentation("pixel_augmentation", recipe) if recipe.augment else None
        erase = _augmentation("erasing", recipe) if recipe.random_erasing else None
        return cls(recipe.crop_padding, recipe.crop_area, recipe.flip, augment, erase, stream)

    def finish(
        self, pixels: Tensor, normalise: Callable[[Tensor], Tensor], seed: int, epoch: int, indices: Tensor, copy: int
    ) -> Tensor:
        """Return images (B, C, H, W) float32 of cropped and flipped pixels (B, C, H, W) uint8."""
        stream = copy_stream(self.stream, copy)
        if self.augment:
            pixels = self.augment(pixels, seed, epoch, indices, stream)
        images = normalise(pixels)
        return self.erase(images, seed, epoch, indices, stream) if self.erase else images


def further_views(recipe: Recipe) -> dict[str, View]:
    """Return a recipe's further views, by name.

    Each has a random crop and flip of its own, as in MLKD (repository Jin-Ying/Multi-Level-Logit-Distillation, with the
    two transforms in sunshangquan/logit-standardization-KD, mdistiller/dataset/cifar100.py).
    """
    return {name: View.of(of_view, name) for name, of_view in view_recipes(recipe).items()}


def copy_stream(stream: str, copy: int) -> str:
    """Return the stream of random numbers of a view's ``copy``-th copy of an image; those of the first are its own."""
    return f"{stream} copy {copy}".strip() if copy else stream


def in_stream(name: str, stream: str) -> str:
    """Return the name of random numbers in a stream."""
    return f"{name} of {stream}" if stream else name


def _augmentation(function: str, recipe: Recipe) -> Augmentation | None:
    made: Any = getattr(importlib.import_module("harness.data.augment"), function)(recipe)
    augmentation: Augmentation | None = made
    return augmentation

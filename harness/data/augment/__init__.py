"""Augmentation: batched operations on pixels and images, pure functions of (seed, epoch, index, stream)."""

from typing import Any, Protocol

from harness.data.augment.erasing import Erasing
from harness.data.augment.pixels import PixelAugmentation


class Augmented(Protocol):
    """A recipe, or a view of it."""

    @property
    def augment(self) -> dict[str, Any] | None: ...

    @property
    def random_erasing(self) -> Any: ...


def pixel_augmentation(recipe: Augmented) -> PixelAugmentation | None:
    """Return what the key `augment` does to pixels (B, C, H, W) uint8; None where it is not stated."""
    return PixelAugmentation(recipe.augment) if recipe.augment else None


def erasing(recipe: Augmented) -> Erasing | None:
    """Return what the key `random_erasing` does to normalised images (B, C, H, W); None where it is 0."""
    return Erasing(recipe.random_erasing) if recipe.random_erasing else None

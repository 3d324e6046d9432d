"""What training asks of data, wherever the images lie."""

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor


class Loader(Protocol):
    """Batches of a training set. Order and augmentation are pure functions of (seed, epoch, index)."""

    batch_size: int

    def __len__(self) -> int:
        """Steps per epoch; the last batch may be smaller."""

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(images (B', C, H, W) float32, targets (B,), indices (B,)) for each step from ``first_step`` on. The
        images are this process's share of the batch's, the rest are the whole batch's."""


class EvalSet(Protocol):
    """Images that a model is evaluated on."""

    name: str  # "test", or "validation": training images that are held out
    targets: Tensor  # (N,) int64, on the device

    def batches(self, mine: slice) -> Iterator[tuple[Tensor, Tensor]]:
        """(images (B, C, H, W) float32, targets (B,)) in file order, each of these images once."""

"""The interface of data in training, wherever the images lie."""

from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

from torch import Tensor

Rows = Callable[[int], slice]  # this process's share of so many images


class Loader(Protocol):
    """Batches of a training set. Order and augmentation are pure functions of (seed, epoch, index)."""

    batch_size: int

    def __len__(self) -> int:
        """Steps per epoch; the last batch may be smaller."""

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[tuple[Tensor, Any, Tensor], None, None]:
        """(images (B', C, H, W) float32, targets, indices (B,)) for each step from ``first_step`` on. The images are
        this process's share of the batch's. Targets are the task's: the whole batch's classes (B,) int64, or what each
        of the images shows, ``methods.detection.Objects``."""


class EvalSet(Protocol):
    """Images that a model is evaluated on."""

    name: str  # "test", or "validation": training images that are held out
    targets: Tensor  # (N,) int64, on the device; zeros where images have no class

    def batches(self, mine: slice) -> Iterator[tuple[Any, ...]]:
        """(images (B, C, H, W) float32, targets (B,)) in file order, each of these images once; of detection, instead
        of targets what brings boxes back to the files' pixels."""

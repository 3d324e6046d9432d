"""The interface of data in training, wherever the images are stored."""

from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

from torch import Tensor

Rows = Callable[[int], slice]  # number of images -> this process's share of them


class Loader(Protocol):
    """Batches of a training set. Order and augmentation are pure functions of (seed, epoch, index)."""

    batch_size: int

    def __len__(self) -> int:
        """Return the steps per epoch; the last batch may be smaller."""

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[tuple[Tensor, Any, Tensor], None, None]:
        """Yield images (B', C, H, W) float32, targets and indices (B,) for each step from ``first_step`` on.

        Images are this process's share of the batch. Targets are the task's: the whole batch's classes (B,) int64, or
        the objects in each of the images, ``methods.detection.Objects``.
        """


class EvalSet(Protocol):
    """Images that a model is evaluated on."""

    name: str  # "test", or "validation": training images that are held out
    targets: Tensor  # (N,) int64, on the device; zeros where images have no class

    def batches(self, mine: slice) -> Iterator[tuple[Any, ...]]:
        """Yield images (B, C, H, W) float32 and targets (B,) in file order, each image of ``mine`` once.

        For detection, targets are replaced by what is needed to map boxes back to the files' pixels.
        """

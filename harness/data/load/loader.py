"""The interface of data in training, wherever the images are stored."""

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

Rows = Callable[[int], slice]  # number of images -> this process's share of them
Waiting = Callable[[], AbstractContextManager[None]]  # is entered while images that are not yet decoded are waited for


@dataclass(frozen=True)
class Extras:
    """The parts of a batch that only some recipes have."""

    target_probs: Tensor | None = None  # (B, classes) float32: the classes' shares, where images are mixed
    views: dict[str, Tensor] = field(default_factory=dict)  # name -> further images, as the batch's own

    def mapped(self, function: Callable[[str, Tensor], Tensor]) -> "Extras":
        """Return them with ``function(name, tensor)`` in place of each tensor."""
        probs = None if self.target_probs is None else function("target_probs", self.target_probs)
        return Extras(probs, {name: function(f"images of {name}", images) for name, images in self.views.items()})


# Images, targets and indices, and extras where a recipe mixes images or has further views.
LoadedBatch = tuple[Tensor, Any, Tensor] | tuple[Tensor, Any, Tensor, Extras]


class Loader(Protocol):
    """Batches of a training set. Order and augmentation are pure functions of (seed, epoch, index)."""

    batch_size: int

    def __len__(self) -> int:
        """Return the steps per epoch; the last batch may be smaller."""

    def epoch(
        self, epoch: int, first_step: int = 0, waiting: Waiting = nullcontext
    ) -> Generator[LoadedBatch, None, None]:
        """Yield images (B', C, H, W) float32, targets and indices (B,) for each step from ``first_step`` on; with
        ``Extras`` where the recipe mixes images or has further views.

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

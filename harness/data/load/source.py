"""A run's data: what it is trained on and what it is evaluated on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from harness.data.load.loader import EvalSet, Loader, Rows
from harness.spec.schema import Recipe
from harness.spec.science import DatasetChoice
from harness.spec.tasks import import_object


class Source(Protocol):
    """The parts of a dataset that a run's science has chosen."""

    train_targets: Tensor  # (N,) int64, on the device
    decoder: str  # what turns files into pixels, which differ a little by it; "" where pixels are stored

    def training(self, recipe: Recipe, seed: int, rows: Rows) -> Loader:
        """Return the training set, in batches."""

    def evaluation(self, whole: bool = False) -> EvalSet:
        """Return what the run is evaluated on: the test set, or the training images that are held out; ``whole``: the
        test set in any case.
        """

    def unaugmented(self, positions: Tensor) -> Iterator[Tensor]:
        """Yield the training images at these positions in their order, as if evaluated: (B, C, H, W) float32.

        Detection's sources do not have it.
        """


def open_source(
    dataset: DatasetChoice, recipe: Recipe, folder: Path | None, device: torch.device, workers: int = 1
) -> Source:
    """Open the data of runs on a dataset. Of a recipe only what is seen of images matters.

    Raises:
        WrongData: the folder holds something else.
    """
    make = import_object(dataset.info.images.source)  # by name: decoders are heavy
    source: Source = make(dataset, recipe, folder, device, workers)
    return source

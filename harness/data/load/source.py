"""A run's data: what it is trained on and what it is evaluated on, from pixels in memory or from stored images."""

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from harness.data.load import arrays
from harness.data.load.loader import EvalSet, Loader, Rows
from harness.data.load.tensors import Normalise, TensorEvalSet, TensorLoader
from harness.spec.schema import Recipe
from harness.spec.science import DatasetChoice


class Source(Protocol):
    """The parts of a dataset that a run's science has chosen."""

    train_targets: Tensor  # (N,) int64, on the device
    decoder: str  # what turns files into pixels, which differ a little by it; "" where pixels are stored

    def training(self, recipe: Recipe, seed: int, rows: Rows) -> Loader:
        """The training set, in batches."""

    def evaluation(self, whole: bool = False) -> EvalSet:
        """What the run is evaluated on: the test set, or the training images that are held out; ``whole``: the test
        set in any case."""


def open_source(
    dataset: DatasetChoice, recipe: Recipe, folder: Path | None, device: torch.device, workers: int = 1
) -> Source:
    """The data of runs on a dataset. Of a recipe only what is seen of images matters.

    Raises:
        WrongData: the folder holds something else.
    """
    views = dataset.info.views
    if views == "pixels":
        return TensorSource(dataset, folder, device)
    assert folder is not None
    if views == "detection":  # what decodes images is heavy, and not needed by all
        from harness.data.load.coco_source import CocoSource

        return CocoSource(dataset, recipe, folder, device, workers)
    from harness.data.load.imagefolder import ImageFolderSource

    return ImageFolderSource(dataset, recipe, folder, device, workers)


class TensorSource:
    """Small images, whole on the device."""

    decoder = ""

    def __init__(self, dataset: DatasetChoice, folder: Path | None, device: torch.device):
        info = dataset.info
        self._all = arrays.read_dataset(info.name, folder)
        self._chosen = self._all.chosen(dataset)
        self._held_out = dataset.validation is not None
        self._normalise, self._device = Normalise(info, device), device
        self.train_targets = torch.from_numpy(self._chosen.train_targets).to(device)

    def training(self, recipe: Recipe, seed: int, rows: Rows) -> TensorLoader:
        images = torch.from_numpy(self._chosen.train_images).to(self._device)
        return TensorLoader(
            images,
            self.train_targets,
            self._normalise,
            batch_size=recipe.batch_size,
            crop_padding=recipe.crop_padding,
            flip=recipe.flip,
            seed=seed,
            rows=rows,
        )

    def evaluation(self, whole: bool = False) -> TensorEvalSet:
        part = self._all if whole else self._chosen
        images, targets = torch.from_numpy(part.test_images), torch.from_numpy(part.test_targets)
        name = "validation" if self._held_out and not whole else "test"
        return TensorEvalSet(name, images.to(self._device), targets.to(self._device), self._normalise)

"""Images stored as JPEG files of any size in the files that harness.prepare wrote, decoded as they are needed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.data import beton, content
from harness.data.load.arrays import WrongData, split_held_out
from harness.data.load.beton import BetonEvalSet, BetonLoader, chosen_backend
from harness.data.load.loader import Rows
from harness.data.load.mixing import Mixing
from harness.data.load.tensors import Normalise
from harness.data.load.view import View, further_views
from harness.data.manifest import Manifest, Part
from harness.spec.schema import Recipe
from harness.spec.science import DatasetChoice


class ImageFolderSource:
    """JPEG files of any size in the files that harness.prepare wrote, decoded as they are needed."""

    def __init__(self, dataset: DatasetChoice, recipe: Recipe, folder: Path, device: torch.device, workers: int):
        manifest = Manifest.read(folder)
        if manifest.version != dataset.version:
            raise WrongData(f"{folder}: content {manifest.version}, expected {dataset.version}: another preparation")
        content.check(folder, manifest, lambda digests: [manifest.classes, digests])
        self._manifest, self._folder, self._recipe = manifest, folder, recipe
        self._device, self._workers = device, workers
        self.decoder = chosen_backend()
        self._normalise, self._classes = Normalise(dataset.info, device), dataset.info.classes
        train = manifest.train
        targets = beton.read_beton(folder / train.file).labels if train else np.empty(0, dtype=np.int64)
        self._trained, self._held_out = split_held_out(targets, dataset)
        self.train_targets = torch.from_numpy(targets[self._trained]).to(device)

    def training(self, recipe: Recipe, seed: int, rows: Rows) -> BetonLoader:
        assert self._manifest.train and recipe.image_size and recipe.crop_area
        return BetonLoader(
            self._folder / self._manifest.train.file,
            self._trained,
            self._normalise,
            batch_size=recipe.batch_size,
            image_size=recipe.image_size,
            seed=seed,
            rows=rows,
            workers=self._workers,
            device=self._device,
            view=View.of(recipe),
            views=further_views(recipe),
            repeats=recipe.repeats,
            mixing=Mixing.of(recipe, self._classes),
        )

    def evaluation(self, whole: bool = False) -> BetonEvalSet:
        if len(self._held_out) > 0 and not whole:
            assert self._manifest.train
            return self._as_evaluated(self._manifest.train, self._held_out, "validation")
        part = self._manifest.test
        assert part
        return self._as_evaluated(part, np.arange(part.images), "test")

    def unaugmented(self, positions: Tensor) -> Iterator[Tensor]:
        assert self._manifest.train
        shown = self._as_evaluated(self._manifest.train, self._trained[positions.cpu().numpy()], "train")
        yield from (images for images, _ in shown.batches(slice(None)))

    def _as_evaluated(self, part: Part, positions: np.ndarray, name: str) -> BetonEvalSet:
        """Return images of a part as a model is evaluated on them."""
        recipe = self._recipe
        assert recipe.eval_size and recipe.eval_resize and recipe.eval_crop_first is not None
        return BetonEvalSet(
            self._folder / part.file,
            positions,
            name,
            self._normalise,
            size=recipe.eval_size,
            resize=recipe.eval_resize,
            crop_first=recipe.eval_crop_first,
            workers=self._workers,
            device=self._device,
        )

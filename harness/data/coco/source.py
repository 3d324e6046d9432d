"""A prepared data set in COCO's format, as a run's science has chosen its parts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from harness.data import beton
from harness.data.coco.annotations import Annotations
from harness.data.coco.loading import CocoEval, CocoTrain
from harness.data.manifest import DetectionManifest, DetectionPart
from harness.data.raw import WrongData
from harness.data.resident import Normalise
from harness.data.source import Rows
from harness.spec import datasets
from harness.spec.schema import Recipe


class CocoSource:
    """Images with objects. Of the training images with an object, in file order, the last ``validation`` of ``dataset``
    are held out, and of the others the first ``train_subset`` are trained on, or all.

    Where the training images are what is evaluated on, those are all in the file, also those without an object; with a
    ``train_subset``, the ones that are trained on.
    """

    decoder = "torchvision"

    def __init__(
        self,
        dataset: Mapping[str, Any],
        recipe: Mapping[str, Any],
        folder: Path,
        device: torch.device,
        workers: int,
    ):
        found = DetectionManifest.read(folder)
        if found.version != dataset["version"]:
            raise WrongData(f"{folder}: content {found.version}, expected {dataset['version']}: another preparation")
        self._manifest, self._folder, self._recipe = found, folder, recipe
        self._device, self._workers = device, workers
        self._normalise = Normalise(datasets.of(dataset), device)
        with_objects = self._with_objects()
        kept = len(with_objects) - (dataset.get("validation") or 0)
        self._subset = dataset["train_subset"]
        self._trained, self._held_out = with_objects[:kept][: self._subset], with_objects[kept:]
        self.train_targets = torch.zeros(len(self._trained), dtype=torch.int64, device=device)

    def training(self, recipe: Recipe, seed: int, rows: Rows) -> CocoTrain:
        part = self._manifest.train
        assert part
        return CocoTrain(
            self._folder / part.file,
            self._annotations(part),
            self._trained,
            self._normalise,
            batch_size=recipe.batch_size,
            sides=self._recipe["sides"],
            max_side=self._recipe["max_side"],
            flip=recipe.flip,
            seed=seed,
            rows=rows,
            workers=self._workers,
            device=self._device,
        )

    def evaluation(self, whole: bool = False) -> CocoEval:
        part, positions, name = self._evaluated(whole)
        return CocoEval(
            self._folder / part.file,
            self._annotations(part),
            positions,
            name,
            self._normalise,
            self._manifest.categories,
            side=self._recipe["eval_side"],
            max_side=self._recipe["max_side"],
            workers=self._workers,
            device=self._device,
        )

    def _evaluated(self, whole: bool) -> tuple[DetectionPart, np.ndarray, Literal["validation", "train", "test"]]:
        found = self._manifest
        if len(self._held_out) and not whole:
            assert found.train
            return found.train, self._held_out, "validation"
        every = np.arange(found.test.images)
        if found.evaluated_on == "train":
            return found.test, every if self._subset is None else self._trained, "train"
        return found.test, every, "test"

    def _with_objects(self) -> np.ndarray:
        """Positions of the images that can be trained on."""
        part = self._manifest.train
        if part is None:
            return np.empty(0, np.int64)
        file = beton.read(self._folder / part.file)
        return np.flatnonzero(self._annotations(part).training_objects(file.heights, file.widths).counts)

    def _annotations(self, part: DetectionPart) -> Annotations:
        path = self._folder / part.annotations
        found = Annotations.load(path, self._manifest.class_count)
        if not np.array_equal(found.image_ids, beton.read(self._folder / part.file).labels):
            raise WrongData(f"{path}: is of other images than {part.file}")
        return found

"""A prepared data set in COCO's format, as a run's science has chosen its parts."""

from pathlib import Path

import torch

from harness.data.coco_parts import Parts
from harness.data.load.coco import CocoEvalSet, CocoLoader
from harness.data.load.loader import Rows
from harness.data.load.tensors import Normalise
from harness.spec.schema import Recipe
from harness.spec.science import DatasetChoice


class CocoSource:
    """Images with objects, see ``Parts``."""

    decoder = "torchvision"

    def __init__(
        self,
        dataset: DatasetChoice,
        recipe: Recipe,
        folder: Path,
        device: torch.device,
        workers: int,
    ):
        assert recipe.sides and recipe.max_side and recipe.eval_side
        self._parts = Parts(dataset, folder)
        self._sides, self._max_side, self._eval_side = recipe.sides, recipe.max_side, recipe.eval_side
        self._device, self._workers = device, workers
        self._normalise = Normalise(dataset.info, device)
        self.train_targets = torch.zeros(len(self._parts.trained), dtype=torch.int64, device=device)

    def training(self, recipe: Recipe, seed: int, rows: Rows) -> CocoLoader:
        part = self._parts.manifest.train
        assert part
        return CocoLoader(
            self._parts.file(part),
            self._parts.annotations(part),
            self._parts.trained,
            self._normalise,
            batch_size=recipe.batch_size,
            sides=self._sides,
            max_side=self._max_side,
            flip=recipe.flip,
            seed=seed,
            rows=rows,
            workers=self._workers,
            device=self._device,
        )

    def evaluation(self, whole: bool = False) -> CocoEvalSet:
        part, positions, name = self._parts.evaluated(whole)
        return CocoEvalSet(
            self._parts.file(part),
            self._parts.annotations(part),
            positions,
            name,
            self._normalise,
            self._parts.manifest.categories,
            side=self._eval_side,
            max_side=self._max_side,
            workers=self._workers,
            device=self._device,
        )

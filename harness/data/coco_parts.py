"""The images of a prepared dataset in COCO's format that a run trains on and those it is evaluated on. Imports no
torch.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from harness.data import beton, content
from harness.data.annotations import Annotations
from harness.data.coco_manifest import CocoManifest, CocoPart
from harness.data.load.arrays import WrongData
from harness.spec.science import DatasetChoice


class Parts:
    """The parts of a prepared dataset that a run uses: of the training images with an object, in file order, the last
    ``validation`` are held out. Of the others the first ``train_subset`` are trained on, or all.

    Where the training images are what is evaluated on, those are all in the file, also those without an object; with a
    ``train_subset``, the ones that are trained on.
    """

    def __init__(self, dataset: DatasetChoice, folder: Path):
        """Read the manifest and the positions of the images.

        Raises:
            UserError: the folder holds no prepared dataset, or it is damaged.
            WrongData: it holds another one.
        """
        manifest = CocoManifest.read(folder)
        if manifest.version != dataset.version:
            raise WrongData(f"{folder}: content {manifest.version}, expected {dataset.version}: another preparation")
        self.manifest, self._folder, self._subset = manifest, folder, dataset.train_subset
        content.check(folder, manifest, self._content)
        with_objects = self._with_objects()
        count = len(with_objects) - (dataset.validation or 0)
        # Positions in the file, which rise
        self.trained, self._held_out = with_objects[:count][: self._subset], with_objects[count:]

    def _content(self, digests: dict[str, str]) -> list[object]:
        """Return what the version stands for."""
        categories = [category.model_dump() for category in self.manifest.categories]
        parts = self.manifest.parts
        return [
            categories,
            {name: (digest, self.annotations(parts[name]).digest()) for name, digest in digests.items()},
        ]

    def evaluated(self, whole: bool = False) -> tuple[CocoPart, np.ndarray, Literal["validation", "train", "test"]]:
        """Return the part that the images are in, their positions there, and what they are; ``whole``: not those that
        are held out.
        """
        manifest = self.manifest
        if len(self._held_out) and not whole:
            assert manifest.train
            return manifest.train, self._held_out, "validation"
        every = np.arange(manifest.test.images)
        if manifest.evaluated_on == "train":
            return manifest.test, every if self._subset is None else self.trained, "train"
        return manifest.test, every, "test"

    def file(self, part: CocoPart) -> Path:
        """Return the path of a part's images."""
        return self._folder / part.file

    def annotations(self, part: CocoPart) -> Annotations:
        """Read a part's annotations.

        Raises:
            WrongData: they are of other images than the part's, or damaged.
        """
        path = self._folder / part.annotations
        annotations = Annotations.load(path, self.manifest.class_count)
        if not np.array_equal(annotations.image_ids, beton.read_beton(self.file(part)).labels):
            raise WrongData(f"{path}: belongs to other images than {part.file}")
        return annotations

    def _with_objects(self) -> np.ndarray:
        """Return the positions of the images that can be trained on."""
        part = self.manifest.train
        if part is None:
            return np.empty(0, np.int64)
        file = beton.read_beton(self.file(part))
        return np.flatnonzero(self.annotations(part).training_objects(file.heights, file.widths).counts)

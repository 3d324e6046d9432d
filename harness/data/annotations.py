"""The objects of many images, as they were annotated: what is trained on, and what detections are held against."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from harness.data.coco_manifest import Category
from harness.data.load.arrays import WrongData

# A box of a shorter side, in pixels within its image, is degenerate: resized, and in float32, its corners could meet.
LEAST_SIDE = 0.01


@dataclass(frozen=True)
class TrainingObjects:
    """K objects in the order of their images."""

    firsts: np.ndarray  # (N + 1,) int64: those of image i are firsts[i] to firsts[i + 1]
    boxes: np.ndarray  # (K, 4) float32: x1, y1, x2, y2 in pixels, within the image
    labels: np.ndarray  # (K,) int64: 1 to the number of classes

    def of(self, image: int) -> slice:
        return slice(int(self.firsts[image]), int(self.firsts[image + 1]))

    @property
    def counts(self) -> np.ndarray:
        """Return the number of objects in each image, (N,)."""
        return np.diff(self.firsts)


@dataclass(frozen=True)
class Annotations:
    """M annotations of N images, in the order of their images and then as they were given."""

    image_ids: np.ndarray  # (N,) int64, rising
    firsts: np.ndarray  # (N + 1,) int64: those of image i are firsts[i] to firsts[i + 1]
    labels: np.ndarray  # (M,) int64: 1 to the number of classes
    boxes: np.ndarray  # (M, 4) float64: x, y, width and height in pixels, as they were given
    areas: np.ndarray  # (M,) float64, square pixels of the object rather than of its box
    crowds: np.ndarray  # (M,) bool: many objects in one box

    @classmethod
    def load(cls, path: Path, classes: int) -> "Annotations":
        """Read the annotations in a file, and trust nothing in it.

        Raises:
            WrongData: it does not hold annotations of ``classes`` classes.
            OSError: it cannot be read.
        """
        try:
            tensors = load_file(path)
        except SafetensorError as e:
            raise WrongData(f"{path}: damaged: {e}") from None
        if tensors.keys() != _FORM.keys():
            raise WrongData(f"{path}: expected {', '.join(_FORM)}; found {', '.join(tensors)}")
        images, many = tensors["image_ids"].size, tensors["labels"].size
        for name, (dtype, shape) in _FORM.items():
            expected = tuple({"N": images, "N + 1": images + 1, "M": many}.get(str(side), side) for side in shape)
            if tensors[name].dtype != dtype or tensors[name].shape != expected:
                raise WrongData(f"{path}: {name}: expected {np.dtype(dtype)} of shape {expected}")
        annotations, firsts = cls(**tensors), tensors["firsts"]
        in_order = firsts[0] == 0 and firsts[-1] == many and (np.diff(firsts) >= 0).all()
        rising = (np.diff(annotations.image_ids) > 0).all()
        known = ((annotations.labels >= 1) & (annotations.labels <= classes)).all()
        if not (in_order and rising and known and np.isfinite(annotations.boxes).all()):
            raise WrongData(f"{path}: damaged: its numbers are no annotations of {classes} classes")
        return annotations

    def save(self, path: Path) -> None:
        path.write_bytes(save(self._tensors()))

    def digest(self) -> str:
        """Return the sha256 of all of it, in order."""
        digest = hashlib.sha256()
        for name, tensor in self._tensors().items():
            digest.update(f"{name} {tensor.shape}\0".encode())
            digest.update(tensor.data)
        return digest.hexdigest()

    def _tensors(self) -> dict[str, np.ndarray]:
        return {field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}

    def of_images(self, positions: np.ndarray) -> "Annotations":
        """Return the annotations of the images at these ``positions``, which rise."""
        counts = np.diff(self.firsts)
        chosen = np.zeros(len(counts), bool)
        chosen[positions] = True
        mine = np.repeat(chosen, counts)
        return Annotations(
            image_ids=self.image_ids[positions],
            firsts=np.concatenate([[0], np.cumsum(counts[positions])]).astype(np.int64),
            labels=self.labels[mine],
            boxes=self.boxes[mine],
            areas=self.areas[mine],
            crowds=self.crowds[mine],
        )

    def training_objects(self, heights: np.ndarray, widths: np.ndarray) -> TrainingObjects:
        """Return the objects to train on, in images of ``heights`` and ``widths`` (N,).

        Boxes are clipped to the image. Crowds, and boxes that are degenerate after clipping, are left out.
        """
        clipped = self._clipped(heights, widths)
        usable = ~self.crowds & ~_degenerate(clipped)
        before = np.concatenate([[0], np.cumsum(usable)])
        return TrainingObjects(before[self.firsts], clipped[usable].astype(np.float32), self.labels[usable])

    def counts(self, heights: np.ndarray, widths: np.ndarray) -> dict[str, int]:
        """Count annotations by ``coco_manifest.KINDS``."""
        degenerate = int((~self.crowds & _degenerate(self._clipped(heights, widths))).sum())
        crowds = int(self.crowds.sum())
        return {"objects": len(self.labels) - crowds - degenerate, "crowds": crowds, "degenerate": degenerate}

    def _clipped(self, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """Return x1, y1, x2, y2 within the images, (M, 4) float64."""
        of_image = np.diff(self.firsts)
        limits = np.repeat(np.stack([widths, heights, widths, heights], axis=1), of_image, axis=0)
        corners = np.concatenate([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]], axis=1)
        return np.clip(corners, 0, limits)

    def as_coco(self, heights: np.ndarray, widths: np.ndarray, categories: Sequence[Category]) -> dict[str, Any]:
        """Return COCO's ground truth, as pycocotools reads it from JSON.

        Annotations are numbered from 1: no result names them, and pycocotools takes number 0 for none.
        """
        images = np.repeat(self.image_ids, np.diff(self.firsts)).tolist()
        columns = (values.tolist() for values in (self.labels, self.boxes, self.areas, self.crowds))
        return {
            "images": [
                {"id": i, "height": h, "width": w}
                for i, h, w in zip(self.image_ids.tolist(), heights.tolist(), widths.tolist(), strict=True)
            ],
            "categories": [{"id": category.id, "name": category.name} for category in categories],
            "annotations": [
                {
                    "id": number,
                    "image_id": image,
                    "category_id": categories[label - 1].id,
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(crowd),
                }
                for number, (image, label, box, area, crowd) in enumerate(zip(images, *columns, strict=True), 1)
            ],
        }


_FORM: dict[str, tuple[type, tuple[object, ...]]] = {
    "image_ids": (np.int64, ("N",)),
    "firsts": (np.int64, ("N + 1",)),
    "labels": (np.int64, ("M",)),
    "boxes": (np.float64, ("M", 4)),
    "areas": (np.float64, ("M",)),
    "crowds": (np.bool_, ("M",)),
}


def _degenerate(corners: np.ndarray) -> np.ndarray:
    """Return which boxes have a side that is too short: (M,) bool of x1, y1, x2, y2 (M, 4)."""
    return (corners[:, 2:] - corners[:, :2] < LEAST_SIDE).any(axis=1)

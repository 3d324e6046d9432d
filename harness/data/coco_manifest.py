"""The manifest of a prepared dataset in COCO's format; imports no torch, so that planning can use it."""

from collections.abc import Mapping
from typing import Literal

from harness.data.manifest import Count, Images, Prepared, Tally, counted
from harness.spec.recipe import Closed

# What is counted of annotations.
KINDS = {
    "objects": "trained on",
    "crowds": "not trained on, and ignored in evaluation",
    "degenerate": "of no width or height within the image: not trained on; in evaluation as they are",
}


class CocoPart(Images):
    """Images with objects, which are in a file of their own."""

    annotations: Literal["train.safetensors", "val.safetensors"]
    annotation_bytes: Count
    trained_on: Count  # images with an object to train on
    objects: dict[str, Count]  # by KINDS

    def sizes(self) -> dict[str, int]:
        return {**super().sizes(), self.annotations: self.annotation_bytes}

    def tallies(self) -> list[Tally]:
        objects = f"annotations: {counted(self.objects, KINDS)}; {self.trained_on:,} images to train on"
        return [*super().tallies(), Tally(objects, self.objects, KINDS)]


class Category(Closed):
    """A class of objects. Its label is its rank among all of them, counted from 1."""

    id: Count  # in the annotations and in results, where numbers may be left out
    name: str


class CocoManifest(Prepared):
    """A dataset to detect objects in. ``version``: of the categories and, in order, ids, stored JPEG bytes and
    annotations of both parts. ``source``: of the annotations, and of the image files' names and sizes."""

    example = "coco"

    dataset: Literal["coco"]
    categories: tuple[Category, ...]  # in the order of their ids
    train: CocoPart | None  # None: prepared for evaluation only
    test: CocoPart  # that of ``train`` where the training images are what is evaluated on

    @property
    def parts(self) -> Mapping[str, CocoPart]:
        return {"train": self.train, self.evaluated_on: self.test} if self.train else {"test": self.test}

    @property
    def class_count(self) -> int:
        return len(self.categories)

    @property
    def evaluated_on(self) -> Literal["train", "test"]:
        return "train" if self.train and self.test.file == self.train.file else "test"

    @property
    def train_size(self) -> int:
        return self.train.trained_on if self.train else 0

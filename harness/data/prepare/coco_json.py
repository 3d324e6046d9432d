"""COCO's annotation files, ``instances_*.json``: read, and nothing in them trusted.

What labelling tools write otherwise, such as an id as text, is read for what it means and counted.
"""

import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.data.annotations import Annotations
from harness.data.coco_manifest import Category
from harness.data.prepare.annotation_file import EXPECTED, read_content
from harness.data.prepare.coco_entry import Entry
from harness.data.prepare.plausibility import usable_areas
from harness.errors import UserError, shorten


class ImageEntry(NamedTuple):
    id: int
    name: str  # as the file says
    height: int  # pixels; 0: the file does not say
    width: int
    place: str  # in the file, for messages


@dataclass(frozen=True)
class Instances:
    """The content of one file, its images in the order of their ids."""

    path: Path
    images: tuple[ImageEntry, ...]
    categories: tuple[Category, ...]  # in the order of their ids
    annotations: Annotations
    remarks: Counter[str]  # by coco_manifest.REMARKS

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the image files, as the file says."""
        return tuple(image.name for image in self.images)

    @property
    def heights(self) -> np.ndarray:
        """Return pixels as the file says, (N,) int64; 0 where it does not."""
        return np.asarray([image.height for image in self.images], np.int64)

    @property
    def widths(self) -> np.ndarray:
        return np.asarray([image.width for image in self.images], np.int64)


class _Annotation(NamedTuple):
    image: int  # its position
    label: int
    box: list[float]
    area: float | None  # None: of its box
    crowd: int
    id: object  # as the file says, if it does


def read_instances(path: Path) -> Instances:
    """Read a file. Category ids, which may have holes, become labels 1, 2, ... in their order. ``iscrowd`` may be
    missing and is 0 then; a missing ``area`` is that of the box. An annotation that is there twice counts once.

    Raises:
        UserError: it is not JSON, a key is missing or holds something else, an id is there twice, an annotation is of
            an unknown image or category, a number is not finite.
    """
    content, remarks = read_content(path), Counter[str]()
    images, positions = _images(path, content, remarks)
    categories, labels = _categories(path, content, remarks)
    rows = list(_annotations(path, content, positions, labels, remarks))
    boxes = np.asarray([row.box for row in rows], np.float64).reshape(-1, 4)
    areas, replaced = usable_areas(np.asarray([row.area for row in rows], np.float64), boxes)
    of_image = np.asarray([row.image for row in rows], np.int64)
    of_class = np.asarray([row.label for row in rows], np.int64)
    crowds = np.asarray([row.crowd for row in rows], bool)
    facts = np.column_stack([of_image, of_class, boxes, areas, crowds])
    order = np.argsort(of_image, kind="stable")
    kept = order[_firsts_of_equals(facts[order])]
    counts = np.bincount(of_image[kept], minlength=len(images))
    ids = [rows[i].id for i in kept if isinstance(rows[i].id, (int, str))]
    remarks.update(
        areas_replaced=replaced, annotations_twice=len(rows) - len(kept), ids_shared=len(ids) - len(set(ids))
    )
    annotations = Annotations(
        image_ids=np.asarray([image.id for image in images], np.int64),
        firsts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        labels=of_class[kept],
        boxes=boxes[kept],
        areas=areas[kept],
        crowds=crowds[kept],
    )
    return Instances(path, images, categories, annotations, +remarks)


def _firsts_of_equals(rows: np.ndarray) -> np.ndarray:
    """Return the positions, which rise, of the first of each kind of row."""
    order = np.lexsort(rows.T[::-1])  # stable: of equal rows, the first one first
    is_new = np.ones(len(rows), bool)
    is_new[1:] = (rows[order][1:] != rows[order][:-1]).any(axis=1)
    return np.sort(order[is_new])


def _items(path: Path, content: dict[str, Any], key: str, remarks: Counter[str]) -> Iterator[Entry]:
    if key not in content:
        raise UserError(f"{path}: no {key!r}; {EXPECTED}")
    if not isinstance(content[key], list):
        raise UserError(f"{path}: {key}: expected a list; found {shorten(content[key])}")
    for i, value in enumerate(content[key]):
        yield Entry(path, f"{key}[{i}]", value, remarks)


def _images(
    path: Path, content: dict[str, Any], remarks: Counter[str]
) -> tuple[tuple[ImageEntry, ...], dict[int | str, int]]:
    """Return the images in the order of their ids, and the position of each id in the file. An image file that has two
    ids is one image, of the lower id.
    """
    items = _by_identity(_items(path, content, "images", remarks), "image")
    numbers = _numbers(items, remarks)
    by_name: dict[str, int] = {}
    images: list[ImageEntry] = []
    positions: dict[int | str, int] = {}
    for identity in sorted(items, key=numbers.__getitem__):
        item = items[identity]
        name, height, width = item.file_name(), item.side("height"), item.side("width")
        if not (height and width):
            remarks["sizes_read"] += 1
            height = width = 0
        position = positions[identity] = by_name.setdefault(posixpath.normpath(name), len(images))
        if position == len(images):
            images.append(ImageEntry(numbers[identity], name, height, width, f"{path}: {item.place}.file_name"))
            continue
        first = images[position]
        if (first.height, first.width) != (height, width):
            item.refuse("file_name", "a file that no other image has with another width or height", name)
        remarks["images_twice"] += 1
    if not images:
        raise UserError(f"{path}: images: expected at least one")
    return tuple(images), positions


def _categories(
    path: Path, content: dict[str, Any], remarks: Counter[str]
) -> tuple[tuple[Category, ...], dict[int | str, int]]:
    """Return the categories in the order of their ids, and the label of each id in the file."""
    items = _by_identity(_items(path, content, "categories", remarks), "category")
    numbers = _numbers(items, remarks)
    ordered = sorted(items, key=numbers.__getitem__)
    if not ordered:
        raise UserError(f"{path}: categories: expected at least one")
    names = [items[identity].category_name(numbers[identity]) for identity in ordered]
    categories = (
        Category(id=numbers[identity], name=name.encode(errors="backslashreplace").decode())
        for identity, name in zip(ordered, names, strict=True)
    )
    return tuple(categories), {identity: label for label, identity in enumerate(ordered, 1)}


def _by_identity(items: Iterator[Entry], kind: str) -> dict[int | str, Entry]:
    by_identity: dict[int | str, Entry] = {}
    for item in items:
        if (identity := item.identity("id")) in by_identity:
            item.refuse("id", f"an id that no other {kind} has", identity)
        by_identity[identity] = item
    return by_identity


def _numbers(items: dict[int | str, Entry], remarks: Counter[str]) -> dict[int | str, int]:
    """Return each id's number: itself, or its rank from 1 where some ids are no numbers."""
    if not any(isinstance(identity, str) for identity in items):
        return {identity: int(identity) for identity in items}
    remarks["ids_numbered"] += len(items)
    return {identity: rank for rank, identity in enumerate(sorted(items, key=str), 1)}


def _annotations(
    path: Path,
    content: dict[str, Any],
    positions: dict[int | str, int],
    labels: dict[int | str, int],
    remarks: Counter[str],
) -> Iterator[_Annotation]:
    """Yield the annotations in the order of the file, without those that have neither a box nor an outline."""
    if content.get("annotations") is None:  # of images to be annotated
        return
    for item in _items(path, content, "annotations", remarks):
        box = item.box()
        image = item.known("image_id", positions, "images")
        label = item.known("category_id", labels, "categories")
        if box is not None:
            yield _Annotation(image, label, box, item.area(), item.crowd(), item.annotation_id())

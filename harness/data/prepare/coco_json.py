"""COCO's annotation files, ``instances_*.json``: read, and nothing in them trusted."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import numpy as np

from harness.data.annotations import Annotations
from harness.data.coco_manifest import Category
from harness.errors import UserError, shorten

LARGEST_ID = 2**63 - 1
LARGEST_SIDE = 65_535  # pixels: a JPEG's
LARGEST_NUMBER = 1e7  # of a box's, in pixels


@dataclass(frozen=True)
class Instances:
    """The content of one file, its images in the order of their ids."""

    path: Path
    names: tuple[str, ...]  # of the image files, relative to their folder
    heights: np.ndarray  # (N,) int64 pixels, as the file says
    widths: np.ndarray  # (N,)
    categories: tuple[Category, ...]  # in the order of their ids
    annotations: Annotations


def read_instances(path: Path) -> Instances:
    """Read a file. Category ids, which may have holes, become labels 1, 2, ... in their order. ``iscrowd`` may be
    missing and is 0 then; a missing ``area`` is that of the box.

    Raises:
        UserError: it is not JSON, a key is missing or holds something else, an id is there twice, an annotation is of
            an unknown image or category, a number is not finite, a file's name leads out of the image folder.
    """
    content = _content(path)
    images = _images(path, content)
    categories = tuple(Category(id=number, name=name) for number, name in sorted(_categories(path, content).items()))
    labels = {category.id: label for label, category in enumerate(categories, 1)}
    rows = list(_annotations(path, content, {number: i for i, (number, *_) in enumerate(images)}, labels))
    of_image, label, box, area, crowd = ([row[k] for row in rows] for k in range(5))
    order = np.argsort(np.asarray(of_image, np.int64), kind="stable")
    counts = np.bincount(np.asarray(of_image, np.int64), minlength=len(images))
    return Instances(
        path,
        names=tuple(name for _, name, _, _ in images),
        heights=np.asarray([height for *_, height, _ in images], np.int64),
        widths=np.asarray([width for *_, width in images], np.int64),
        categories=categories,
        annotations=Annotations(
            image_ids=np.asarray([number for number, *_ in images], np.int64),
            firsts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            labels=np.asarray(label, np.int64)[order],
            boxes=np.asarray(box, np.float64).reshape(-1, 4)[order],
            areas=np.asarray(area, np.float64)[order],
            crowds=np.asarray(crowd, bool)[order],
        ),
    )


def _content(path: Path) -> dict[str, Any]:
    try:
        # Outlines, which boxes do not need, are most of a file: let go one by one as they are read.
        content = json.loads(path.read_bytes(), object_hook=_without_outline)
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}") from None
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}: not JSON: {e}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected COCO's images, annotations and categories; found {shorten(content)}")
    return content


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    entry.pop("segmentation", None)
    return entry


class _Item:
    """An entry of one of the file's lists."""

    def __init__(self, path: Path, place: str, value: Any):
        self._path, self._place, self._value = path, place, value
        if not isinstance(value, dict):
            self.refuse("", "a mapping", value)

    def refuse(self, key: str, expected: str, value: object) -> NoReturn:
        place = f"{self._place}.{key}" if key else self._place
        raise UserError(f"{self._path}: {place}: expected {expected}; found {shorten(value)}")

    def has(self, key: str) -> bool:
        return key in self._value

    def get(self, key: str) -> Any:
        try:
            return self._value[key]
        except KeyError:
            raise UserError(f"{self._path}: {self._place}: no {key!r}") from None

    def integer(self, key: str, least: int, largest: int) -> int:
        value = self.get(key)
        if type(value) is not int or not least <= value <= largest:
            self.refuse(key, f"an integer from {least:,} to {largest:,}", value)
        return value

    def known(self, key: str, ids: dict[int, int], whose: str) -> int:
        """Return the value that ``ids`` has for an id."""
        value = self.get(key)
        if type(value) is not int or value not in ids:
            self.refuse(key, f"the id of one of the file's {whose}", value)
        return ids[value]

    def box(self) -> list[float]:
        value = self.get("bbox")
        if not (isinstance(value, list) and len(value) == 4 and all(_is_number(v, LARGEST_NUMBER) for v in value)):
            self.refuse("bbox", f"x, y, width and height, numbers of at most {LARGEST_NUMBER:,.0f}", value)
        return value

    def area(self) -> float:
        value = self.get("area")
        if not _is_number(value, LARGEST_NUMBER**2):
            self.refuse("area", "a finite number", value)
        return float(value)

    def file_name(self) -> str:
        """Return a file name that is relative and stays below its folder, except for links in the folder itself."""
        value = self.get("file_name")
        if not isinstance(value, str) or not value or "\0" in value:
            self.refuse("file_name", "a file's name", value)
        name = PurePosixPath(value)
        if name.is_absolute() or ".." in name.parts or not name.parts:
            self.refuse("file_name", "a file's name below the image folder", value)
        try:
            os.fsencode(value)
        except UnicodeEncodeError:
            self.refuse("file_name", "a file's name", value)
        return value


def _items(path: Path, content: dict[str, Any], key: str) -> Iterator[_Item]:
    if key not in content:
        raise UserError(f"{path}: no {key!r}; expected COCO's images, annotations and categories")
    if not isinstance(content[key], list):
        raise UserError(f"{path}: {key}: expected a list; found {shorten(content[key])}")
    for i, value in enumerate(content[key]):
        yield _Item(path, f"{key}[{i}]", value)


def _images(path: Path, content: dict[str, Any]) -> list[tuple[int, str, int, int]]:
    """Return id, file name, height and width of each image, in the order of their ids."""
    by_id: dict[int, tuple[int, str, int, int]] = {}
    for item in _items(path, content, "images"):
        number = item.integer("id", 0, LARGEST_ID)
        if number in by_id:
            item.refuse("id", "an id that no other image has", number)
        height, width = (item.integer(key, 1, LARGEST_SIDE) for key in ("height", "width"))
        by_id[number] = (number, item.file_name(), height, width)
    if not by_id:
        raise UserError(f"{path}: images: expected at least one")
    return sorted(by_id.values())


def _categories(path: Path, content: dict[str, Any]) -> dict[int, str]:
    """Return names by id."""
    names: dict[int, str] = {}
    for item in _items(path, content, "categories"):
        number, name = item.integer("id", 0, LARGEST_ID), item.get("name")
        if number in names:
            item.refuse("id", "an id that no other category has", number)
        if not isinstance(name, str):
            item.refuse("name", "text", name)
        names[number] = name.encode(errors="backslashreplace").decode()
    if not names:
        raise UserError(f"{path}: categories: expected at least one")
    return names


def _annotations(
    path: Path, content: dict[str, Any], images: dict[int, int], labels: dict[int, int]
) -> Iterator[tuple[int, int, list[float], float, int]]:
    """Yield position of the image, label, box, area and whether it is a crowd, of each annotation in the order of the
    file.
    """
    for item in _items(path, content, "annotations"):
        box = item.box()
        position = item.known("image_id", images, "images")
        label = item.known("category_id", labels, "categories")
        area = item.area() if item.has("area") else float(box[2]) * float(box[3])
        yield position, label, box, area, item.integer("iscrowd", 0, 1) if item.has("iscrowd") else 0


def _is_number(value: object, largest: float) -> bool:
    return type(value) in (int, float) and -largest <= value <= largest  # type: ignore[operator]  # false of NaN

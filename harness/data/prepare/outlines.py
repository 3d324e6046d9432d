"""Outlines of objects as COCO's files state them, polygons and run lengths, and the boxes around them."""

from typing import Any

import numpy as np

LARGEST = 65_535  # pixels of a mask's side: a JPEG's
LARGEST_NUMBER = 1e7  # of a polygon or a box, in pixels


def box_of_outline(outline: Any) -> list[float] | None:
    """Return x, y, width and height of the box around an outline; None where that is none, or damaged.

    A polygon is a list x, y, x, y, ...; an outline is one of them or several, or run lengths of a mask.
    """
    if isinstance(outline, dict):
        return _box_of_mask(outline)
    if not isinstance(outline, list):
        return None
    polygons = outline if outline and isinstance(outline[0], list) else [outline]
    numbers = [polygon for polygon in polygons if isinstance(polygon, list) and polygon and _are_pairs(polygon)]
    if not numbers or len(numbers) < len(polygons):
        return None
    xs, ys = ([value for polygon in numbers for value in polygon[axis::2]] for axis in (0, 1))
    left, top = float(min(xs)), float(min(ys))
    return [left, top, max(xs) - left, max(ys) - top]


def is_number(value: object, largest: float) -> bool:
    return type(value) in (int, float) and -largest <= value <= largest  # type: ignore[operator]  # false of NaN


def _are_pairs(polygon: list[Any]) -> bool:
    return len(polygon) % 2 == 0 and all(is_number(v, LARGEST_NUMBER) for v in polygon)


def _box_of_mask(mask: dict[str, Any]) -> list[float] | None:
    """Return the box around a mask: the lengths of its runs, outside and inside by turns, column by column."""
    size, counts = mask.get("size"), mask.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(v) is int and 0 < v <= LARGEST for v in size)):
        return None
    runs = _run_lengths(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(v) is int and 0 <= v <= LARGEST**2 for v in runs):
        return None
    height, ends = size[0], np.cumsum(np.asarray(runs, np.int64))
    first, last = ends[0:-1:2], ends[1::2] - 1  # pixels of each run inside
    first, last = first[: len(last)][last >= first], last[last >= first]
    if not len(last) or ends[-1] > height * size[1]:
        return None
    left, right = int(first[0]) // height, int(last[-1]) // height
    spans_columns = (first // height != last // height).any()  # such a run touches the lower and the upper edge
    top = 0 if spans_columns else int((first % height).min())
    bottom = height - 1 if spans_columns else int((last % height).max())
    return [float(left), float(top), float(right - left + 1), float(bottom - top + 1)]


def _run_lengths(text: str) -> list[int] | None:
    """Return the run lengths that pycocotools writes as text: five bits a letter, the least first; from the fourth on
    differences to the last but one.
    """
    lengths: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    return lengths

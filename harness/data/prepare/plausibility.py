"""Boxes and areas that cannot be what COCO's format says, as some tools write them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from harness.data.annotations import Annotations

# Of boxes in pixels: rounding, by tools that count pixels from 0 or from 1.
TOLERANCE = 1.0
# The shares of boxes from which all of them count as corners: that fit as corners, and that fit as nothing else.
_FITTING, _ONLY = 0.9, 0.25


def usable_areas(areas: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, int]:
    """Return areas (M,) with the box's where there is none (NaN) or where it is impossible, and how many are: 0,
    negative, larger than the box, or 1 everywhere.
    """
    widths, heights = boxes[:, 2], boxes[:, 3]
    own = widths * heights
    proper = (widths > 0) & (heights > 0)
    too_large = areas > (widths + TOLERANCE) * (heights + TOLERANCE)  # an outline's pixels may be counted
    impossible = np.isinf(areas) | (proper & ((areas <= 0) | too_large))
    possible = proper & ~impossible & ~np.isnan(areas)
    if (areas[possible] == 1).all():
        impossible |= possible & (own > 1)
    return np.where(impossible | np.isnan(areas), own, areas), int(impossible.sum())


def implausible(annotations: Annotations, heights: np.ndarray, widths: np.ndarray) -> Counter[str]:
    """Count boxes of objects that cannot be x, y, width and height in pixels, by ``coco_manifest.REMARKS``."""
    of_image = np.repeat(np.arange(len(heights)), np.diff(annotations.firsts))[~annotations.crowds]
    x, y, width, height = annotations.boxes[~annotations.crowds].T
    areas = annotations.areas[~annotations.crowds]
    right, bottom = widths[of_image] + TOLERANCE, heights[of_image] + TOLERANCE
    sized = (width > 0) & (height > 0)
    shares = sized & (np.maximum(np.maximum(width, height), np.maximum(np.abs(x), np.abs(y))) <= 1)
    outside = (np.minimum(x, y) < -TOLERANCE) | (x + width > right) | (y + height > bottom)
    corners = ~shares & (x >= 0) & (y >= 0) & (width > x) & (height > y) & (width <= right) & (height <= bottom)
    as_sizes, as_corners = (np.isclose(areas, a * b, rtol=0.01) for a, b in ((width, height), (width - x, height - y)))
    only_corners = corners & (outside | (as_corners & ~as_sizes))
    many = len(areas)
    if not many or corners.sum() < _FITTING * many or only_corners.sum() < _ONLY * many:
        corners[:] = False
    counts = {"boxes_as_shares": shares, "boxes_as_corners": corners, "boxes_outside": outside & ~corners}
    return Counter({kind: int(holds.sum()) for kind, holds in counts.items()})


def turned(
    annotations: Annotations, orientations: Mapping[int, int], heights: np.ndarray, widths: np.ndarray
) -> Annotations:
    """Return the annotations with the boxes of some images, by position, turned as the images are by these EXIF
    orientations, which swap their sides; ``heights`` and ``widths`` (N,) are those of the turned images.
    """
    boxes = annotations.boxes.copy()
    for i, orientation in orientations.items():
        mine = slice(int(annotations.firsts[i]), int(annotations.firsts[i + 1]))
        x, y, width, height = annotations.boxes[mine].T
        left = widths[i] - y - height if orientation in (6, 7) else y
        top = heights[i] - x - width if orientation in (7, 8) else x
        boxes[mine] = np.stack([left, top, height, width], axis=1)
    return replace(annotations, boxes=boxes)

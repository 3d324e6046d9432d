"""The size at which each image is shown, and its boxes there."""

import numpy as np


def resized_sizes(heights: np.ndarray, widths: np.ndarray, shorter: np.ndarray | int, longest: int) -> np.ndarray:
    """Return the heights and widths, (N, 2) int64, that images of ``heights`` and ``widths`` (N,) are resized to.

    The shorter side becomes ``shorter``, or less where the longer one would exceed ``longest``. Sizes are rounded to
    the nearest integer, halves up, as in detectron2's ``ResizeShortestEdge``, and are never 0.
    """
    given = np.stack([heights, widths], axis=1).astype(np.float64)
    sizes = given * (shorter / given.min(axis=1))[:, None]
    sizes *= np.minimum(longest / sizes.max(axis=1), 1)[:, None]
    return np.maximum(np.floor(sizes + 0.5), 1).astype(np.int64)


def resized_boxes(given: np.ndarray, size: tuple[int, int], shown: tuple[int, int], flip: bool) -> np.ndarray:
    """Return boxes, (K, 4) float32 x1, y1, x2, y2, in pixels of a resized image, which is mirrored if ``flip``.

    ``given`` (K, 4) are the boxes in the original image. ``size`` is its height and width, ``shown`` the new ones.
    """
    height, width = (to / of for to, of in zip(shown, size, strict=True))
    scaled = (given * np.array([width, height, width, height])).astype(np.float32)
    if flip:
        scaled[:, [0, 2]] = shown[1] - scaled[:, [2, 0]]
    return scaled

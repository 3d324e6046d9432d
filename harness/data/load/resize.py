"""The size at which each image is shown, and its boxes there."""

import numpy as np


def resized_sizes(heights: np.ndarray, widths: np.ndarray, shorter: np.ndarray | int, longest: int) -> np.ndarray:
    """(N, 2) int64 heights and widths that images of ``heights`` and ``widths`` (N,) are resized to: the shorter side
    to ``shorter``, or to less where the longer one would exceed ``longest``. Rounded to the nearest, halves up, as
    detectron2's ``ResizeShortestEdge`` does; never to 0.
    """
    given = np.stack([heights, widths], axis=1).astype(np.float64)
    wanted = given * (shorter / given.min(axis=1))[:, None]
    wanted *= np.minimum(longest / wanted.max(axis=1), 1)[:, None]
    return np.maximum(np.floor(wanted + 0.5), 1).astype(np.int64)


def resized_boxes(given: np.ndarray, size: tuple[int, int], shown: tuple[int, int], flip: bool) -> np.ndarray:
    """(K, 4) float32 x1, y1, x2, y2 in pixels of an image that was of ``size``, height and width, and is ``shown`` in
    another, mirrored if ``flip``; ``given`` (K, 4) likewise, in pixels of the image as it was."""
    height, width = (to / of for to, of in zip(shown, size, strict=True))
    scaled = (given * np.array([width, height, width, height])).astype(np.float32)
    if flip:
        scaled[:, [0, 2]] = shown[1] - scaled[:, [2, 0]]
    return scaled

"""Crops: the random crops and flips of training, and the central crops of the two evaluation protocols.

All loaders compute crops here, so that they show the same parts of the same images.
"""

from typing import Any

import numpy as np
import torch

from harness import rng
from harness.data.load.view import in_stream

ASPECT = (3 / 4, 4 / 3)  # of random crops, width over height
TRIES = 10
_AT_ONCE = 1 << 16  # images whose crops are drawn at once, as more take memory and are slower

# A part of an image, the size it is resized to, and the window of the result, ``size`` x ``size``, that is the input.
# In evaluation the window is at the centre of a resized image; in training it is the whole resized part.
# ``position`` is the image's position in its file.
_COLUMNS = ("top", "left", "height", "width", "to_height", "to_width", "row", "column", "flip")
VIEW = np.dtype([("position", np.int64), *((name, np.int32) for name in _COLUMNS)])


def training_views(
    seed: int,
    epoch: int,
    indices: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    area: tuple[float, float] = (0.08, 1.0),
    flip: bool = True,
    stream: str = "",
) -> np.ndarray:
    """Return the crops of an epoch's images, (N, 5) int32: top, left, height, width, and whether to flip.

    Crops are distributed as in torchvision's ``RandomResizedCrop``: a share of the image's area uniform in ``area``, an
    aspect ratio log-uniform in 3/4..4/3, at any position. If none of ten tries fits into the image, the crop is the
    largest central part of an allowed ratio. ``indices`` (N,) are positions in the training set; the random numbers
    depend only on (seed, epoch, index, stream). ``heights`` and ``widths`` (N,) are those of the same images.
    """
    views = np.empty((len(indices), 5), np.int32)
    for start in range(0, len(indices), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        views[some] = _training_views(seed, epoch, indices[some], heights[some], widths[some], area, flip, stream)
    return views


def _training_views(
    seed: int,
    epoch: int,
    indices: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    area: tuple[float, float],
    flip: bool,
    stream: str,
) -> np.ndarray:
    keys = torch.from_numpy(np.asarray(indices, dtype=np.int64))
    size = np.stack([heights, widths], axis=1).astype(np.float64)
    part = _largest_central(size)
    unfitted = np.arange(len(keys))  # images that no try has fitted yet
    for attempt in range(TRIES):
        share = area[0] + (area[1] - area[0]) * _uniform(
            seed, epoch, in_stream(f"crop area {attempt}", stream), keys[unfitted]
        )
        low, high = np.log(ASPECT)
        aspect = np.exp(
            low + (high - low) * _uniform(seed, epoch, in_stream(f"crop aspect {attempt}", stream), keys[unfitted])
        )
        pixels = share * size[unfitted].prod(axis=1)
        tried = np.rint(np.sqrt(np.stack([pixels / aspect, pixels * aspect], axis=1)))
        fits = ((tried > 0) & (tried <= size[unfitted])).all(axis=1)
        part[unfitted[fits]] = tried[fits]
        unfitted = unfitted[~fits]
    sides = (in_stream(f"crop {side}", stream) for side in ("top", "left"))
    corner = np.stack([_uniform(seed, epoch, side, keys) for side in sides], axis=1)
    slack = size - part
    corner = np.floor(corner * (slack + 1))
    corner[unfitted] = slack[unfitted] // 2
    flipped = np.zeros(len(keys), np.int64)
    if flip:
        flipped = rng.random_integers(seed, epoch, in_stream("flip", stream), keys, 2).numpy()
    return np.column_stack([corner, part, flipped])


def as_views(positions: np.ndarray, training: np.ndarray, size: int) -> np.ndarray:
    """Return (N,) VIEW of what ``training_views`` returned, resized to ``size`` x ``size``."""
    views = np.zeros(len(training), VIEW)
    views["position"] = positions
    for column, name in enumerate(("top", "left", "height", "width", "flip")):
        views[name] = training[:, column]
    views["to_height"] = views["to_width"] = size
    return views


def evaluation_views(
    positions: np.ndarray, heights: np.ndarray, widths: np.ndarray, *, size: int, resize: int, crop_first: bool
) -> np.ndarray:
    """Return (N,) VIEW of images to evaluate on, by one of two protocols.

    - torchvision's: the shorter side is resized to ``resize``, then the central ``size`` x ``size`` is taken;
    - FFCV's (``crop_first``): the central square of size/resize of the shorter side is resized to ``size`` x ``size``.

    Both show about the same part; they differ in what is rounded and in what the resampling sees at the edge.
    """
    views = np.zeros(len(positions), VIEW)
    views["position"] = positions
    shorter = np.minimum(heights, widths).astype(np.int64)
    if crop_first:
        side = np.maximum(size * shorter // resize, 1)
        views["height"] = views["width"] = side
        views["top"], views["left"] = (heights - side) // 2, (widths - side) // 2
        views["to_height"] = views["to_width"] = size
        return views
    views["height"], views["width"] = heights, widths
    for side, to, first in ((heights, "to_height", "row"), (widths, "to_width", "column")):
        views[to] = resize * side.astype(np.int64) / shorter  # rounded down
        views[first] = np.rint((views[to] - size) / 2)
    return views


def _largest_central(size: np.ndarray) -> np.ndarray:
    """Return the largest crop of an allowed aspect ratio, (N, 2) float64, for images of ``size`` (N, 2)."""
    height, width = size.T
    low, high = ASPECT
    return np.stack(
        [np.where(width < low * height, np.rint(width / low), height),
         np.where(width > high * height, np.rint(height * high), width)], axis=1
    )  # fmt: skip


def _uniform(seed: int, epoch: int, stream: str, keys: torch.Tensor) -> Any:
    """Draw (N,) float64 in [0, 1) with 53 random bits each."""
    return (rng.random_bits(seed, epoch, stream, keys) >> 10).numpy() * 2.0**-53

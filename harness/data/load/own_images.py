"""The images and labels of a part of a user's own data, as arrays of bytes: no pixel changes."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from harness.data.load.arrays import WrongData
from harness.errors import shorten

ADVICE = (
    "images in memory are all of one size: resize them in your class, or write them to files and prepare these with "
    "python -m harness.prepare imagefolder, which takes any sizes"
)
_TOGETHER = 4096  # images of an array that are converted at a time


def read_part(content: Any, part: str, channels: int, tell: Callable[[int, int], None]) -> list[np.ndarray]:
    """Return images (N, C, H, W) uint8 and labels (N,) int64.

    Args:
        content: a tuple of images and labels, or what has a length and items (image, label).
        channels: as many values as the mean has; where it is 1, images may have 1 channel or 3.
        tell: called with the number of images read and of all.

    Raises:
        WrongData: it is something else.
    """
    is_pair = isinstance(content, tuple | list) and len(content) == 2
    if is_pair and (isinstance(content, tuple) or _is_stacked(content[0])):
        images, labels = content
        count = _length(images, "images")
        if count != _length(labels, "labels"):
            raise WrongData(f"{count:,} images and {len(labels):,} labels: expected a label for each image")
        if _is_stacked(images):
            return [_from_array(images, channels, tell), _labels(labels)]
        content = list(zip(images, labels, strict=True))
    if inspect.isclass(content) or not (hasattr(content, "__getitem__") and hasattr(content, "__len__")):
        raise WrongData(
            f"expected a tuple of images and labels, or a Dataset with a length and items; found {shorten(content)}"
        )
    return _from_items(content, channels, tell)


def _length(values: Any, what: str) -> int:
    try:
        return len(values)
    except TypeError:
        raise WrongData(f"{what}: expected an array, found {shorten(values)}") from None


def _is_stacked(images: Any) -> bool:
    return hasattr(images, "shape") and hasattr(images, "dtype") and images.dtype != object


def _from_array(images: Any, channels: int, tell: Callable[[int, int], None]) -> np.ndarray:
    count = len(images)
    if not count:
        raise WrongData("has no images")
    if len(images.shape) not in (3, 4):
        raise WrongData(f"images have shape {tuple(images.shape)}, expected (N, H, W), (N, H, W, C) or (N, C, H, W)")
    first = not isinstance(images, np.ndarray)
    parts = []
    for start in range(0, count, _TOGETHER):
        tell(start, count)
        parts.append(_by_channel(_bytes(np.asarray(images[start : start + _TOGETHER]), start), channels, first))
    return np.concatenate(parts)


def _from_items(items: Any, channels: int, tell: Callable[[int, int], None]) -> list[np.ndarray]:
    count = len(items)
    if not count:
        raise WrongData("has no images")
    images, labels = np.empty((0,), np.uint8), []
    for i in range(count):
        tell(i, count)
        item = items[i]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise WrongData(f"item {i:,}: expected (image, label), found {shorten(item)}")
        pixels = _item(item[0], i, channels)
        if i == 0:
            images = np.empty((count, *pixels.shape), np.uint8)
        if pixels.shape != images.shape[1:]:
            sizes = ["x".join(map(str, shape)) for shape in (images.shape[1:], pixels.shape)]
            raise WrongData(f"image 0 is {sizes[0]} and image {i:,} is {sizes[1]}: {ADVICE}")
        images[i] = pixels
        labels.append(_label(item[1], i))
    return [images, np.array(labels, np.int64)]


def _item(image: Any, i: int, channels: int) -> np.ndarray:
    """Return an item's image by channel, (C, H, W)."""
    is_tensor = hasattr(image, "shape") and not isinstance(image, np.ndarray)
    if hasattr(image, "getbands"):
        if image.mode not in ("L", "RGB"):
            raise WrongData(f"image {i:,} is a PIL image of mode {image.mode}: return image.convert('RGB'), or 'L'")
    elif not hasattr(image, "shape"):
        raise WrongData(f"image {i:,}: expected a PIL image, an array or a tensor, found {shorten(image)}")
    pixels = _bytes(np.asarray(image)[None], i)
    if pixels.ndim not in (3, 4):
        raise WrongData(f"image {i:,} has shape {pixels.shape[1:]}, expected (H, W), (H, W, C) or (C, H, W)")
    return _by_channel(pixels, channels, is_tensor)[0]


def _bytes(images: np.ndarray, start: int) -> np.ndarray:
    """Return images as they are, or the bytes k where they are floats that are exactly k/255."""
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise WrongData(f"image {start:,} is {images.dtype}, expected uint8: pixels from 0 to 255")
    if not np.isfinite(images).all():
        raise WrongData(f"image {start + _first_image(~np.isfinite(images)):,} has NaN or infinite pixels")
    levels = np.arange(256, dtype=images.dtype) / images.dtype.type(255)
    k = np.clip(np.rint(images * 255), 0, 255).astype(np.uint8)
    if (wrong := levels[k] != images).any():
        raise WrongData(
            f"image {start + _first_image(wrong):,} has {images.dtype} pixels that are no k/255, such as "
            f"{images[wrong][0]:g}: return uint8, without normalisation or augmentation, which the recipe does"
        )
    return k


def _first_image(wrong: np.ndarray) -> int:
    return int(np.flatnonzero(wrong.reshape(len(wrong), -1).any(1))[0])


def _by_channel(images: np.ndarray, channels: int, first: bool) -> np.ndarray:
    """Return images (N, C, H, W); ``first``: where both would do, channels come first, as in tensors."""
    if images.ndim == 3:
        return images[:, None]
    counts = (channels,) if channels > 1 else (1, 3)
    is_first, is_last = images.shape[1] in counts, images.shape[3] in counts
    if is_first and (first or not is_last):
        return images
    if not is_last:
        count = " or ".join(map(str, counts))
        raise WrongData(
            f"images have shape {images.shape[1:]}, expected {count} channels, first or last; mean has {channels} "
            f"value{'s' if channels > 1 else ''}"
        )
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _labels(labels: Any) -> np.ndarray:
    classes = np.asarray(labels)
    if classes.ndim == 2 and 1 not in classes.shape:
        raise WrongData(
            f"labels have shape {classes.shape}, expected (N,): the number of each image's class, not one-hot"
        )
    if classes.ndim != 1 or classes.dtype.kind not in "iu":
        raise WrongData(f"labels are {classes.dtype} of shape {classes.shape}, expected whole numbers of shape (N,)")
    return classes.astype(np.int64)


def _label(label: Any, i: int) -> int:
    value = np.asarray(label)
    if value.ndim or value.dtype.kind not in "iu":
        raise WrongData(f"label {shorten(label)} of image {i:,}: expected a whole number, that of its class")
    return int(value)

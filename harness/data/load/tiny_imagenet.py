"""Tiny-ImageNet (Stanford's CS231N, 2015): JPEGs of 64x64, decoded to memory; grey ones become RGB."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from harness.data import tiny_imagenet_files
from harness.data.cifar_files import shards_in
from harness.data.load import parquet_images
from harness.data.load.arrays import ArrayDataset, Tell, WrongData
from harness.errors import UserError
from harness.hardware import cores

SHAPE = (64, 64, 3)
_FORMATS = ("JPEG", "PNG")


def sources(place: Path) -> list[Path]:
    """Return the files and folders that are read, in what ``tiny_imagenet_files.find_tiny_imagenet`` has found."""
    if (place / "train").is_dir():
        return [place / "train", place / "val"]
    shards = shards_in(place)
    return [path for part in shards for path in part] if shards else [place]


def read_arrays(folder: Path, tell: Tell) -> ArrayDataset:
    """Read the training images (100,000) and the validation images (10,000), which all evaluate on.

    ``folder``: as ``tiny_imagenet_files.find_tiny_imagenet`` finds it.

    Raises:
        WrongData: it holds something else.
    """
    if not (folder / "train").is_dir() and (shards := shards_in(folder)):
        parts = [parquet_images.read_split(paths, SHAPE, _FORMATS, "Tiny-ImageNet") for paths in shards]
    else:
        try:
            labelled = zip(("train", "val"), tiny_imagenet_files.labelled_files(folder), strict=True)
            parts = [_decoded(files, partial(tell, part)) for part, files in labelled]
        except (UserError, OSError) as e:
            raise WrongData(str(e)) from None
    return ArrayDataset(*(array for part in parts for array in part))


def _decoded(
    files: tiny_imagenet_files.LabelledFiles, tell: Callable[[int, int], None]
) -> tuple[np.ndarray, np.ndarray]:
    images = np.empty((len(files), SHAPE[2], *SHAPE[:2]), np.uint8)

    def decode(i: int) -> None:
        path, _ = files[i]
        try:
            images[i] = parquet_images.pixels_of(path.read_bytes(), SHAPE, _FORMATS).transpose(2, 0, 1)
        except Exception as e:  # damaged files make decoders raise anything
            raise WrongData(f"{path}: not an image of Tiny-ImageNet: {e}") from None

    with ThreadPoolExecutor(cores()) as threads:
        for done, _ in enumerate(threads.map(decode, range(len(files)))):
            tell(done, len(files))
    return images, np.array([label for _, label in files], np.int64)

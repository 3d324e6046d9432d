"""CIFAR-100 from lossless mosaics: images of many 32x32 tiles, from which the official files are written.

They may lie in several folders below the data root, and arrive one after another: `missing` names what is not there.
"""

import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from harness.errors import UserError

SPLITS = {"train": 5, "test": 1}  # mosaics of each
LABELS = "labels.npz"
_SIDE = 32


def missing(root: Path) -> list[str]:
    """Return the names of the mosaics and labels that no folder below ``root`` has."""
    names = [LABELS, *(f"{split}_{i}.webp" for split, count in SPLITS.items() for i in range(count))]
    return [name for name in names if not find(root, name)]


def unpack(root: Path, folder: Path) -> None:
    """Write CIFAR-100's official files, `train` and `test`, into ``folder``.

    Raises:
        UserError: a file cannot be read, or there are not as many images as labels.
    """
    try:
        labels = dict(np.load(find(root, LABELS)[0], allow_pickle=False))
        splits = {
            split: np.concatenate(list(_tiles(find(root, f"{split}_{i}.webp")[0] for i in range(count))))
            for split, count in SPLITS.items()
        }
    except (OSError, ValueError, EOFError, SyntaxError, zipfile.BadZipFile) as error:
        raise UserError(f"the mosaics of CIFAR-100 below {root} cannot be read: {error}") from None
    for split, pixels in splits.items():
        if (count := len(labels.get(f"y_{split}", ()))) != len(pixels):
            raise UserError(f"the mosaics of {split} below {root} have {len(pixels)} images, {LABELS} {count} labels")
    folder.mkdir(parents=True, exist_ok=True)
    for split, pixels in splits.items():
        content = {b"data": pixels, b"fine_labels": [int(label) for label in labels[f"y_{split}"]]}
        partial = folder / f".{split}.tmp"
        partial.write_bytes(pickle.dumps(content, protocol=2))
        partial.replace(folder / split)


def find(root: Path, name: str) -> list[Path]:
    """Return the files or folders of this name in ``root`` and up to two folders down; deeper, data sets are large."""
    return [path for pattern in (name, f"*/{name}", f"*/*/{name}") for path in sorted(root.glob(pattern))]


def _tiles(paths: Iterable[Path]) -> Iterable[np.ndarray]:
    """Yield the tiles of each mosaic, row by row, as (N, 3 * 32 * 32) uint8, channels first."""
    from PIL import Image

    for path in paths:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        rows, columns = pixels.shape[0] // _SIDE, pixels.shape[1] // _SIDE
        tiles = pixels.reshape(rows, _SIDE, columns, _SIDE, 3).transpose(0, 2, 4, 1, 3)
        yield tiles.reshape(rows * columns, 3 * _SIDE * _SIDE)

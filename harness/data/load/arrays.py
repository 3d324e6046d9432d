"""A dataset in memory, and the reader of each by name."""

import hashlib
import importlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.errors import shorten
from harness.spec.science import DatasetChoice
from harness.spec.tasks import DatasetInfo
from harness.store import data_cache

Tell = Callable[[str, int, int], None]  # of a reader: a part, how many of its images are read, and how many there are


@dataclass
class ArrayDataset:
    """Pixels as they are in the files."""

    train_images: np.ndarray  # (N, C, H, W) uint8
    train_targets: np.ndarray  # (N,) int64
    test_images: np.ndarray
    test_targets: np.ndarray

    def chosen(self, dataset: DatasetChoice) -> "ArrayDataset":
        """Return the images that a run trains on and, as the test part, those that it is evaluated on."""
        if dataset.train_subset is None and dataset.validation is None:
            return self
        train, held_out = split_held_out(self.train_targets, dataset)
        images, targets = self.train_images, self.train_targets
        if dataset.validation is None:
            return ArrayDataset(images[train], targets[train], self.test_images, self.test_targets)
        return ArrayDataset(images[train], targets[train], images[held_out], targets[held_out])

    def version(self) -> str:
        """sha256 of all pixels and labels in order, 16 hex digits."""
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_targets, self.test_images, self.test_targets):
            digest.update(str((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]


class WrongData(Exception):
    """The files are there but do not hold the dataset they should."""


def read_dataset(info: DatasetInfo, folder: Path | None) -> ArrayDataset:
    """Read a dataset and check it against the version that the catalog, or a run's settings, state.

    Raises:
        WrongData: the files are missing or have other content.
    """
    if info.read_once:
        assert folder is not None
        return read_cached(folder, info.version)
    raw: ArrayDataset = importlib.import_module(info.module).read_arrays(folder)
    if raw.version() != info.version:
        raise WrongData(
            f"dataset {info.name!r}: content hash {raw.version()}, expected {info.version}: not the official data"
        )
    return raw


def read_cached(folder: Path, version: str) -> ArrayDataset:
    """Return the arrays of a dataset that was read once, mapped to memory, and checked.

    Raises:
        WrongData: they are damaged, and removed, so that the next command reads the dataset again; or not there.
    """
    again = "run the same command again: it reads the data anew"
    try:
        # Not np.load, which also opens archives. Objects, which would be unpickled, are refused.
        files = (np.lib.format.open_memmap(folder / f"{name}.npy", mode="c") for name in data_cache.ARRAYS)
        raw = ArrayDataset(*files)
        content = raw.version()
    except FileNotFoundError:
        raise WrongData(f"{folder}: no such data: {again}") from None
    except (OSError, ValueError, EOFError, OverflowError, RecursionError, MemoryError) as e:
        content = f"none ({shorten(str(e))})"
    if content != version:
        with suppress(OSError):
            data_cache.remove_arrays(folder)
        raise WrongData(f"{folder}: damaged: content hash {content}, expected {version}; removed: {again}")
    return raw


def write_cached(folder: Path, raw: ArrayDataset) -> None:
    """Write a dataset's arrays, as ``read_cached`` reads them.

    Raises:
        DiskFull: the disk is full; nothing is left behind.
    """

    def write(temporary: Path) -> None:
        for name in data_cache.ARRAYS:
            np.save(temporary / f"{name}.npy", getattr(raw, name), allow_pickle=False)

    data_cache.replace_arrays(folder, write)


def split_held_out(targets: np.ndarray, dataset: DatasetChoice) -> tuple[np.ndarray, np.ndarray]:
    """Return positions, in file order, of the images to train on and of the held-out ones.

    The last images of each class are held out, ``validation`` in all. Of the others, the first ``train_subset``, or
    all, are trained on.
    """
    rank, size = rank_in_class(targets)
    available = size - (dataset.validation or 0) // dataset.info.classes
    subset = dataset.train_subset
    used = available if subset is None else np.minimum(available, subset // dataset.info.classes)
    return np.flatnonzero(rank < used), np.flatnonzero(rank >= available)


def rank_in_class(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's rank among those of its class, in file order from 0, and how many these are; both (N,)."""
    rank, size = np.empty_like(targets), np.empty_like(targets)
    for c in np.unique(targets):
        members = np.flatnonzero(targets == c)
        rank[members], size[members] = np.arange(len(members)), len(members)
    return rank, size

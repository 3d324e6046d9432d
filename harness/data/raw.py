"""A dataset in memory, and the reader of each by name."""

import hashlib
import importlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.locate import dataset_folder
from harness.spec.datasets import CATALOG


@dataclass
class RawDataset:
    """Pixels as they are in the files."""

    train_images: np.ndarray  # (N, C, H, W) uint8
    train_targets: np.ndarray  # (N,) int64
    test_images: np.ndarray
    test_targets: np.ndarray

    def version(self) -> str:
        """sha256 of all pixels and labels in order, 16 hex digits."""
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_targets, self.test_images, self.test_targets):
            digest.update(str((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]


class WrongData(Exception):
    """The files are there but do not hold the dataset they should."""


def read(name: str, data_root: Path | None) -> RawDataset:
    """The dataset, checked against the version that the catalog states.

    Raises:
        UserError: it is not there.
        WrongData: its content is another's.
    """
    info = CATALOG[name]
    raw: RawDataset = importlib.import_module(info.module).read(dataset_folder(name, data_root))
    if raw.version() != info.version:
        raise WrongData(
            f"dataset {name!r}: content hash {raw.version()}, expected {info.version}: not the official data"
        )
    return raw


def subset(targets: np.ndarray, per_class: int) -> np.ndarray:
    """Positions of the first ``per_class`` images of each class, in file order."""
    rank = np.empty_like(targets)
    for c in np.unique(targets):
        members = np.flatnonzero(targets == c)
        rank[members] = np.arange(len(members))
    return np.flatnonzero(rank < per_class)

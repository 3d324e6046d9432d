"""CIFAR-10 (Krizhevsky 2009), read as ``cifar`` reads CIFAR-100."""

from pathlib import Path

from harness.data.cifar_files import CIFAR10, shards_in
from harness.data.load.arrays import ArrayDataset, Tell
from harness.data.load.cifar import read_cifar


def sources(place: Path) -> list[Path]:
    """Return the files that are read, in what ``cifar_files.find_cifar10`` has found."""
    parts = CIFAR10.files_in(place) or shards_in(place)
    return [path for part in parts for path in part] if parts else [place]


def read_arrays(place: Path, tell: Tell) -> ArrayDataset:
    """Read the training images (50,000) and the test images (10,000); in seconds, so that there is nothing to tell.

    Raises:
        WrongData: it holds something else.
    """
    return read_cifar(CIFAR10, place)

"""CIFAR-10 (Krizhevsky 2009), read as ``cifar`` reads CIFAR-100."""

from pathlib import Path

from harness.data.cifar_files import CIFAR10
from harness.data.load.arrays import ArrayDataset
from harness.data.load.cifar import read_cifar


def read_arrays(folder: Path | None) -> ArrayDataset:
    """Read the training images (50,000) and the test images (10,000).

    Raises:
        WrongData: the folder holds something else.
    """
    return read_cifar(CIFAR10, folder)

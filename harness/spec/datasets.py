"""Datasets by name, as far as they are known before they are read. Imports no torch, so that planning can use it."""

from dataclasses import replace
from typing import Any

from harness.errors import unknown
from harness.spec.tasks import CHANNELS, DATASETS, DatasetInfo, TaskInfo, classification

COUNTS = ("classes", "train_size", "test_size", "train_per_class")  # of a prepared dataset, from its manifest
PREPARED = tuple(name for name, info in DATASETS.items() if info.preparation)  # what harness.prepare writes


def prepared_dataset(name: str, version: str, *counts: int) -> DatasetInfo:
    """Return the description of a dataset in a prepared folder; ``counts`` are its ``COUNTS``."""
    stated: dict[str, Any] = dict(zip(COUNTS, counts, strict=True))
    return replace(DATASETS[name], version=version, **stated)


def check_name(name: str) -> None:
    """Check that there is such a dataset.

    Raises:
        ValueError: there is none; the message names the known ones.
    """
    if name not in DATASETS:
        raise ValueError(unknown("dataset", name, DATASETS))


def info_of(name: str) -> DatasetInfo:
    """Return a dataset's description; records of a dataset that is unknown here are read as a classifier's."""
    return DATASETS.get(name) or DatasetInfo(name, classification.TASK, classification.TASK.images[0])


def task_of(name: str) -> TaskInfo:
    """Return a dataset's task, see ``info_of``."""
    return info_of(name).task


def image_shape(info: DatasetInfo, size: int | tuple[tuple[int, int], ...] | None) -> tuple[int, int, int] | None:
    """Return (C, H, W) of the images that models are given at the end of training; None: they are of any size.

    ``size`` is the recipe's ``image_size``.
    """
    if size is None:
        return info.image_shape
    side = size if isinstance(size, int) else size[-1][1]
    return (info.image_shape[0] if info.image_shape else CHANNELS, side, side)

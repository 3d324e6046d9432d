"""Datasets by name, as far as they are known before they are read. Imports no torch, so that planning can use it."""

import re
from dataclasses import replace
from typing import Any

from harness.errors import expected, unknown
from harness.spec.models import CATALOG
from harness.spec.tasks import CHANNELS, DATASETS, DatasetInfo, TaskInfo, classification

COUNTS = ("classes", "train_size", "test_size", "train_per_class")  # of a prepared dataset, from its manifest
SHAPE = ("image_shape", "mean", "std")
_OWN = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
PREPARED = tuple(name for name, info in DATASETS.items() if info.preparation)  # what harness.prepare writes


def prepared_dataset(name: str, version: str, *counts: int) -> DatasetInfo:
    """Return the description of a dataset in a prepared folder; ``counts`` are its ``COUNTS``."""
    stated: dict[str, Any] = dict(zip(COUNTS, counts, strict=True))
    return replace(DATASETS[name], version=version, **stated)


def is_own(name: str) -> bool:
    """Return whether a dataset is a class of a user's own, named ``package.module:Class``."""
    return ":" in name


def stated_keys(info: DatasetInfo) -> tuple[str, ...]:
    """Return the facts of a dataset that only its content tells, and that a science therefore states."""
    if is_own(info.name):
        return (*COUNTS, *SHAPE)
    return COUNTS if info.preparation or info.read_once else ()


def check_name(name: str) -> None:
    """Check that there is such a dataset; of a user's own, only that its name is of the right form.

    Raises:
        ValueError: there is none; the message names the known ones.
    """
    if is_own(name):
        if not _OWN.fullmatch(name):
            raise ValueError(expected("a dataset's name or package.module:Class", name))
    elif name not in DATASETS:
        module, dot, last = name.rpartition(".")
        own = f"; is it your own? write {module}:{last}" if dot else ""
        raise ValueError(unknown("dataset", name, DATASETS) + own)


def info_of(name: str) -> DatasetInfo:
    """Return a dataset's description; records of a dataset that is unknown here are read as a classifier's."""
    own = DatasetInfo(name, classification.TASK, classification.PIXELS, read_once=is_own(name))
    return DATASETS.get(name) or own


def task_of(name: str) -> TaskInfo:
    """Return a dataset's task, see ``info_of``."""
    return info_of(name).task


def size_advice(info: DatasetInfo, model: str) -> str:
    """Return what to do about a model that does not take a dataset's images, for the end of a message.

    Channels cannot be changed, so that nothing is said about a model that takes others than the dataset has.
    """
    entry, shape = CATALOG.get(model.partition("(")[0]), info.image_shape
    if entry is None or entry.image_shape[0] != (shape[0] if shape else CHANNELS):
        return ""
    side = entry.image_shape[1]
    if shape is None:  # the recipe decides the size
        return (
            f"; set `image_size: {side}`, `eval_size: {side}` and `eval_resize: {side}` or a little more in the recipe"
        )
    others = "a model of timm or torchvision, such as torchvision:resnet18"
    return f"; set `image_size: {side}` in the recipe, or take {others}"


def image_shape(info: DatasetInfo, size: int | tuple[tuple[int, int], ...] | None) -> tuple[int, int, int] | None:
    """Return (C, H, W) of the images that models are given at the end of training; None: they are of any size.

    ``size`` is the recipe's ``image_size``.
    """
    if size is None:
        return info.image_shape
    side = size if isinstance(size, int) else size[-1][1]
    return (info.image_shape[0] if info.image_shape else CHANNELS, side, side)

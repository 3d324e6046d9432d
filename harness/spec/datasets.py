"""What is known of every dataset before it is read; imports no torch, so that planning can use it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.errors import unknown
from harness.spec.tasks import CHANNELS, DATASETS, DatasetInfo, TaskInfo

PREPARED = tuple(name for name, info in DATASETS.items() if info.preparation)  # what harness.prepare writes
_COUNTS = ("classes", "train_size", "test_size", "train_per_class")


def prepared_dataset(
    name: str, version: str, classes: int, train_size: int, test_size: int, train_per_class: int
) -> DatasetInfo:
    """A dataset in a prepared folder."""
    return replace(
        DATASETS[name],
        version=version,
        classes=classes,
        train_size=train_size,
        test_size=test_size,
        train_per_class=train_per_class,
    )


def check_name(name: str) -> None:
    """Raises:
    ValueError: naming the datasets there are.
    """
    if name not in DATASETS:
        raise ValueError(unknown("dataset", name, DATASETS))


def task_of(name: str) -> TaskInfo:
    return DATASETS[name].task


def as_science(info: DatasetInfo) -> dict[str, Any]:
    """What a run's science says of the dataset itself."""
    said: dict[str, Any] = {"name": info.name, "version": info.version}
    if info.preparation:  # so that a science says all that is known, wherever the prepared folder lies
        said |= {k: getattr(info, k) for k in _COUNTS}
    return said


def dataset_of(dataset: Mapping[str, Any]) -> DatasetInfo:
    """The dataset that a science's ``dataset`` names."""
    if dataset["name"] not in PREPARED:
        return DATASETS[dataset["name"]]
    return prepared_dataset(dataset["name"], dataset["version"], **{k: dataset[k] for k in _COUNTS})


def image_shape(info: DatasetInfo, recipe: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """(C, H, W) of the images that models are given at the end of training; None: they are of any size."""
    size = recipe.get("image_size")
    if info.image_shape is not None or size is None:
        return info.image_shape
    side = size if isinstance(size, int) else size[-1][1]
    return (CHANNELS, side, side)

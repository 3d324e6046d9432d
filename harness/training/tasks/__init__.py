"""The tasks in training: one module each, behind one interface."""

import importlib
from pathlib import Path

from harness.spec.schema import Recipe
from harness.spec.science import DatasetChoice
from harness.training.tasks.base import Task

__all__ = ["Task", "open_task"]


def open_task(dataset: DatasetChoice, recipe: Recipe, backbone: tuple[Path, str] | None = None) -> Task:
    """Return the task of runs on a dataset. ``backbone``: file and sha256 of the weights that students start from."""
    module = importlib.import_module(dataset.info.task.module)
    task: Task = module.open_task(dataset.info, recipe, backbone)
    return task

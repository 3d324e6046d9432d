"""The tasks in training: one module each, behind one interface."""

import importlib

from harness.spec.schema import Recipe
from harness.spec.science import DatasetChoice
from harness.training.tasks.base import Backbone, Task

__all__ = ["Backbone", "Task", "open_task"]


def open_task(dataset: DatasetChoice, recipe: Recipe, backbone: Backbone | None = None) -> Task:
    """Return the task of runs on a dataset. ``backbone``: the weights that students start from."""
    module = importlib.import_module(dataset.info.task.module)
    task: Task = module.open_task(dataset.info, recipe, backbone)
    return task

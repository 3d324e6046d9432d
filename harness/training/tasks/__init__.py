"""The tasks in training: one module each, behind one interface."""

import importlib

from harness.spec.schema import Recipe
from harness.spec.science import DatasetChoice
from harness.training.tasks.base import StartWeights, Task

__all__ = ["StartWeights", "Task", "open_task"]


def open_task(dataset: DatasetChoice, recipe: Recipe, start: StartWeights | None = None) -> Task:
    """Return the task of runs on a dataset. ``start``: the weights that students start from."""
    module = importlib.import_module(dataset.info.task.module)
    task: Task = module.open_task(dataset.info, recipe, start)
    return task

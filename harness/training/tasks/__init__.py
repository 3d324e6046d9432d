"""What differs between tasks in training: one module each, behind one interface."""

import importlib
from typing import Any

from harness.spec import datasets
from harness.training.tasks.base import Given, Task

__all__ = ["Task", "open_task"]


def open_task(science: dict[str, Any], given: Given | None = None) -> Task:
    """The task of a run, which its dataset says. ``given``: where the weights lie that it names."""
    module = importlib.import_module(datasets.dataset_of(science["dataset"]).task.module)
    task: Task = module.open_task(science, given or {})
    return task

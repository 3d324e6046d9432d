"""What differs between tasks in training: one module each, behind one interface."""

import importlib
from typing import Any

from harness.spec import datasets
from harness.training.tasks.base import Task

__all__ = ["Task", "open_task"]


def open_task(science: dict[str, Any]) -> Task:
    """The task of a run, which its dataset says."""
    module = importlib.import_module(datasets.of(science["dataset"]).task.module)
    task: Task = module.open_task(science)
    return task

"""The tasks there are, and what an evaluation of each measures; imports no torch, so that planning can use it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskInfo:
    name: str
    metrics: tuple[str, ...]  # columns of a record, as last_* and best_*
    score: str  # the metric by which the best epoch is chosen and tables compare; higher is better
    shown: str  # what a person reads for it
    module: str  # has open_task(science) -> training.tasks.base.Task


CLASSIFICATION = TaskInfo(
    "classification", ("top1", "top5", "loss"), "top1", "top-1", "harness.training.tasks.classification"
)
DETECTION = TaskInfo(
    "detection", ("AP", "AP50", "AP75", "APs", "APm", "APl"), "AP", "AP", "harness.training.tasks.detection"
)
CATALOG = {task.name: task for task in (CLASSIFICATION, DETECTION)}
METRICS = tuple(metric for task in CATALOG.values() for metric in task.metrics)

"""The tasks there are, and what an evaluation of each measures; imports no torch, so that planning can use it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskInfo:
    name: str
    metrics: tuple[str, ...]  # columns of a record, as last_* and best_*
    printed: tuple[str, ...]  # those of tables, in %, higher is better; the first is the score
    loss: str  # what a person reads for the term `ce`: the student's loss without a teacher
    module: str  # has open_task(info, recipe, backbone) -> training.tasks.base.Task

    @property
    def score(self) -> str:
        """The metric by which the best epoch is chosen and tables compare."""
        return self.printed[0]

    @property
    def shown(self) -> str:
        """What a person reads for the score."""
        return shown(self.score)


def shown(metric: str) -> str:
    """What a person reads for a metric."""
    return {"top1": "top-1", "top5": "top-5"}.get(metric, metric)


CLASSIFICATION = TaskInfo(
    "classification",
    ("top1", "top5", "loss"),
    ("top1", "top5"),
    "cross-entropy",
    "harness.training.tasks.classification",
)
_AP = ("AP", "AP50", "AP75", "APs", "APm", "APl")
DETECTION = TaskInfo("detection", _AP, _AP, "detector's own loss", "harness.training.tasks.detection")
CATALOG = {task.name: task for task in (CLASSIFICATION, DETECTION)}
METRICS = tuple(metric for task in CATALOG.values() for metric in task.metrics)

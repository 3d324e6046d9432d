"""The student trained alone: the baseline that every method is measured against, and how teachers are trained."""

from typing import ClassVar

from torch import Tensor

from methods.base import Batch, Distiller, Outputs


class Student(Distiller):
    """The student's own loss, no teacher."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0}
    needs_teacher: ClassVar[bool] = False

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {}

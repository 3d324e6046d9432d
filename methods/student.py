"""The student without a teacher: the baseline of every method. Teachers are trained in the same way."""

from typing import ClassVar

from torch import Tensor

from methods.base import Batch, Distiller, Outputs


class Student(Distiller):
    """The student's own loss, without a teacher."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0}
    needs_teacher: ClassVar[bool] = False

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {}

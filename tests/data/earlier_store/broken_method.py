"""A method of a user's that fails at its third step."""

from typing import ClassVar

from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec


class Broken(Distiller):
    """Fail at the third step."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.steps = 0

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        self.steps += 1
        if self.steps == 3:
            raise ArithmeticError("this method has a bug")
        return {}

"""SRRL: the teacher's classifier reads the student's features."""

from typing import ClassVar, Literal

from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec


class SRRL(Distiller):
    """Softmax regression representation: to be written."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "feature": 1.0, "regression": 1.0, "kd": 0.0}

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        connector: Literal["map", "pooled"] = "map",
        temperature: float = 4.0,
    ):
        super().__init__(student, teacher)
        raise NotImplementedError

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        raise NotImplementedError

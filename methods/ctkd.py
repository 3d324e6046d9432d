"""CTKD: a temperature that is trained against the student."""

from typing import ClassVar

from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec


class CTKD(Distiller):
    """Curriculum temperature: to be written."""

    weights: ClassVar[dict[str, float]] = {"ce": 0.1, "kd": 0.9}
    logits_only: ClassVar[bool] = True

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        lowest_temperature: float = 1.0,
        temperature_range: float = 20.0,
        reversal: float = 1.0,
        reversal_epochs: int = 10,
    ):
        super().__init__(student, teacher)
        raise NotImplementedError

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        raise NotImplementedError

"""NKD: soft targets of the target class and, normalised, of the others."""

from typing import ClassVar

from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec


class NKD(Distiller):
    """Normalised distillation: to be written."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "target": 1.0, "others": 1.5}
    logits_only: ClassVar[bool] = True

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        temperature: float = 1.0,
    ):
        super().__init__(student, teacher)
        raise NotImplementedError

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        raise NotImplementedError

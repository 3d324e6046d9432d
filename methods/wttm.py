"""WTTM: a temperature for the teacher alone, images weighted by its power sum."""

from typing import ClassVar

from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec


class WTTM(Distiller):
    """Weighted transformed teacher matching: to be written."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "match": 4.0}
    logits_only: ClassVar[bool] = True

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        power: float = 0.2,
    ):
        super().__init__(student, teacher)
        raise NotImplementedError

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        raise NotImplementedError

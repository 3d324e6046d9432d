"""RLD: soft targets refined by the label."""

from typing import ClassVar

from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec


class RLD(Distiller):
    """Refined logits: to be written."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "scd": 1.0, "mcd": 8.0}
    logits_only: ClassVar[bool] = True

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        temperature: float = 4.0,
        confidence_temperature: float = 1.0,
        warmup: int = 20,
    ):
        super().__init__(student, teacher)
        raise NotImplementedError

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        raise NotImplementedError

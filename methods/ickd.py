"""ICKD: correlations between the channels of an image's map."""

from typing import ClassVar

from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec


class ICKD(Distiller):
    """Inter-channel correlation: to be written."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "correlation": 2.5, "kd": 0.0}

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        tap: str = "last",
        temperature: float = 4.0,
    ):
        super().__init__(student, teacher)
        raise NotImplementedError

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        raise NotImplementedError

"""WKD-F: transport between Gaussians of the channels of maps."""

from typing import ClassVar

from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec


class WKDF(Distiller):
    """Wasserstein distance of features: to be written."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "mean": 0.32, "deviation": 0.08}

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        tap: str = "last",
        grid: int = 1,
        decay_start: int = 150,
        decay_end: int = 240,
    ):
        super().__init__(student, teacher)
        raise NotImplementedError

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        raise NotImplementedError

"""PKD: correlation of the two models' maps, channel by channel."""

from typing import ClassVar

from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec


class PKD(Distiller):
    """Pearson correlation of maps: to be written."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "correlation": 6.0}
    defined_for: ClassVar[tuple[str, ...]] = ("classification", "detection")

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        taps: str = "stages",
    ):
        super().__init__(student, teacher)
        raise NotImplementedError

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        raise NotImplementedError

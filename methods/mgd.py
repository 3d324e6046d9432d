"""MGD: the teacher's map generated from a masked map of the student."""

from typing import ClassVar, Literal

from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec


class MGD(Distiller):
    """Masked generation: to be written."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "generation": 2e-5}
    defined_for: ClassVar[tuple[str, ...]] = ("classification", "detection")

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        taps: str = "stages",
        mask_ratio: float = 0.65,
        mask: Literal["positions", "channels"] = "positions",
    ):
        super().__init__(student, teacher)
        raise NotImplementedError

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        raise NotImplementedError

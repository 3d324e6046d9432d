"""OFA-KD: logits of every stage of a student."""

from typing import ClassVar, Literal

from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec


class OFA(Distiller):
    """One for all: to be written."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "logits": 1.0, "stages": 1.0}

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        taps: str = "stages",
        exponent: float = 1.0,
        temperature: float = 1.0,
        reading: Literal["code", "paper"] = "code",
    ):
        super().__init__(student, teacher)
        raise NotImplementedError

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        raise NotImplementedError

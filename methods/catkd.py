"""CAT-KD: transfer of class activation maps."""

from typing import ClassVar, Literal

from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec


class CATKD(Distiller):
    """Class activation maps: to be written."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "cam": 15.0}

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        resolution: int = 2,
        normalise: bool = False,
        binarise: bool = False,
        reading: Literal["code", "paper"] = "code",
    ):
        super().__init__(student, teacher)
        raise NotImplementedError

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        raise NotImplementedError

"""TeKAP-L: soft targets of a teacher and of noisy copies of its logits."""

from typing import ClassVar, Literal

from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec


class TeKAPL(Distiller):
    """Perturbed teacher logits: to be written."""

    weights: ClassVar[dict[str, float]] = {"ce": 0.1, "kd": 0.9}
    logits_only: ClassVar[bool] = True

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        temperature: float = 4.0,
        copies: int = 3,
        noise: float = 0.1,
        copy_weight: float = 0.8,
        reading: Literal["code", "paper"] = "code",
    ):
        super().__init__(student, teacher)
        raise NotImplementedError

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        raise NotImplementedError

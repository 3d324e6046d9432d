"""MLKD: multi-level logit distillation of a weak and a strong view."""

from typing import ClassVar, Literal

from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec


class MLKD(Distiller):
    """Multi-level logits: to be written."""

    weights: ClassVar[dict[str, float]] = {"ce": 0.1, "kd": 0.9, "cc": 0.9, "bc": 0.9}
    views: ClassVar[tuple[str, ...]] = ("strong",)
    views_with: ClassVar[tuple[str, object] | None] = ("strong_view", True)
    logits_only: ClassVar[bool] = True

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        temperature: float = 4.0,
        strong_view: bool = True,
        reading: Literal["code", "paper"] = "code",
    ):
        super().__init__(student, teacher)
        raise NotImplementedError

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        raise NotImplementedError

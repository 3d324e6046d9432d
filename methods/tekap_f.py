"""TeKAP-F: CRD with a noisy copy of the teacher's feature."""

from typing import ClassVar, Literal

from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec


class TeKAPF(Distiller):
    """Perturbed teacher features: to be written."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "crd": 0.8}
    per_image: ClassVar[bool] = True

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        feat_dim: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        noise: float = 0.1,
        mode: Literal["exact", "relax"] = "exact",
    ):
        super().__init__(student, teacher)
        raise NotImplementedError

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        raise NotImplementedError

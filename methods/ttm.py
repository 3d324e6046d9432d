"""TTM: a temperature for the teacher alone."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec, check_not_negative


class TTM(Distiller):
    """Transformed teacher matching: Zheng, Yang 2024, "Knowledge Distillation Based on Transformed Teacher Matching",
    arXiv:2402.11148.

        q = p_t^l / sum_c p_t(c)^l = softmax(l z_t)                    p = softmax(z), z (B, classes), l = ``power``
        L_match = KL( q || p_s ),  mean over the batch

    l is the inverse of the teacher's temperature; with 0, q is uniform. The student has none, and there is no T^2.
    Weight 45 and l = 0.1 are those of the authors' example, vgg13 -> vgg8 (github.com/zkxufo/TTM @fe457b3, README.md),
    the only ones that it states.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "match": 45.0}
    logits_only: ClassVar[bool] = True

    def __init__(self, student: TapSpec, teacher: TapSpec, *, power: float = 0.1):
        super().__init__(student, teacher)
        check_not_negative("power", power)
        self.power = power

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {"match": divergences(student.logits, teacher.logits, self.power).mean()}


def divergences(z_s: Tensor, z_t: Tensor, power: float) -> Tensor:
    """Return each image's KL( q || p_s ), (B,), for logits (B, classes)."""
    log_q = (power * z_t).log_softmax(1)
    return F.kl_div(z_s.log_softmax(1), log_q, reduction="none", log_target=True).sum(1)

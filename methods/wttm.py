"""WTTM: a temperature for the teacher alone, images weighted by its power sum."""

from typing import ClassVar

from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec, check_not_negative
from methods.ttm import divergences


class WTTM(Distiller):
    """Weighted transformed teacher matching: Zheng, Yang 2024, "Knowledge Distillation Based on Transformed Teacher
    Matching", arXiv:2402.11148.

        L_match = U KL( q || p_s ),  mean over the batch          q, p and l = ``power`` as in TTM (methods/ttm.py)
        U = sum_c p_t(c)^l,  (B,)

    U is large where the teacher is unsure: from 1, for one class of probability 1, up to classes^(1 - l), for l < 1. So
    the loss's scale depends on l and on the number of classes. l = 0.2 and weight 4 are those of the authors' example,
    vgg13 -> vgg8, where CRD with weight 0.8 is added (github.com/zkxufo/TTM @fe457b3, README.md), the only ones that it
    states.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "match": 4.0}
    logits_only: ClassVar[bool] = True

    def __init__(self, student: TapSpec, teacher: TapSpec, *, power: float = 0.2):
        super().__init__(student, teacher)
        check_not_negative("power", power)
        self.power = power

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        power_sum = (self.power * teacher.logits.log_softmax(1)).exp().sum(1)
        return {"match": (power_sum * divergences(student.logits, teacher.logits, self.power)).mean()}

"""KD: knowledge distillation from softened logits."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec, check_positive


class KD(Distiller):
    """Soft targets: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531,
    section 2.

        L_kd = T^2 KL( softmax(z_t / T) || softmax(z_s / T) ),  mean over the batch

    z_s and z_t are the logits (B, classes). T^2 keeps the gradient's size independent of T, as in the paper. Weights
    0.1 CE + 0.9 KD and T = 4 are those of CRD's comparison (Tian et al. 2020, arXiv:1910.10699).
    """

    weights: ClassVar[dict[str, float]] = {"ce": 0.1, "kd": 0.9}
    defined_for: ClassVar[tuple[str, ...]] = ("classification", "two_stage")
    logits_only: ClassVar[bool] = True

    def __init__(self, student: TapSpec, teacher: TapSpec, *, temperature: float = 4.0):
        super().__init__(student, teacher)
        check_positive("temperature", temperature)
        self.temperature = temperature

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {"kd": soft_target_loss(student.logits, teacher.logits, self.temperature)}


def soft_target_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Return T^2 KL(teacher || student) at temperature T for logits (B, classes): the mean over the batch, a scalar."""
    log_p_s = F.log_softmax(student_logits / temperature, dim=1)
    log_p_t = F.log_softmax(teacher_logits / temperature, dim=1)
    return F.kl_div(log_p_s, log_p_t, reduction="batchmean", log_target=True) * temperature**2

"""DKD: decoupled distillation, with separate terms for the target class and the other classes."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec, check_positive


class DKD(Distiller):
    """Decoupled distillation: Zhao et al. 2022, "Decoupled Knowledge Distillation", arXiv:2203.08679, equations 5-7.

        b = ( p_target, 1 - p_target )                              p = softmax(z / T), z (B, classes)
        q = softmax(z / T without the target class)                 (B, classes - 1)
        L_tckd = T^2 KL( b_t || b_s ),   L_nckd = T^2 KL( q_t || q_s ),   means over the batch

    The weights are the paper's alpha 1 and beta 8. Its beta is 6 for vgg13 -> vgg8 or MobileNetV2 and for wrn_40_2 ->
    wrn_16_2 or wrn_40_1, and 2 for resnet56 -> resnet20 and resnet110 -> resnet32. As in the authors' code, both terms
    are multiplied by min(epoch / warmup, 1), with epochs from 1. Their warmup of 20 is for 240 epochs of CIFAR-100; 0
    turns it off. Logarithms come from log-softmax, so that the loss is finite for a student that is sure of its target.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "tckd": 1.0, "nckd": 8.0}
    defined_for: ClassVar[tuple[str, ...]] = ("classification", "two_stage")
    logits_only: ClassVar[bool] = True
    version: ClassVar[int] = 2  # 1 had no warm-up

    def __init__(self, student: TapSpec, teacher: TapSpec, *, temperature: float = 4.0, warmup: int = 20):
        super().__init__(student, teacher)
        check_positive("temperature", temperature)
        if warmup < 0:
            raise ValueError(f"warmup must be 0 or more epochs, not {warmup}")
        self.temperature, self.warmup = temperature, warmup

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        tckd, nckd = decoupled_losses(student.logits, teacher.logits, batch.targets, self.temperature)
        ramp = batch.ramp(self.warmup)
        return {"tckd": ramp * tckd, "nckd": ramp * nckd}


def decoupled_losses(z_s: Tensor, z_t: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return L_tckd and L_nckd for logits (B, classes) and class numbers (B,)."""
    (log_b_s, log_q_s), (log_b_t, log_q_t) = (decouple(z / temperature, targets) for z in (z_s, z_t))
    tckd, nckd = (
        F.kl_div(log_s, log_t, reduction="batchmean", log_target=True) * temperature**2
        for log_s, log_t in ((log_b_s, log_b_t), (log_q_s, log_q_t))
    )
    return tckd, nckd


def decouple(z: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return log b (B, 2) and log q (B, classes - 1) of scaled logits (B, classes)."""
    own, others = split(z, targets)
    return own_or_other(own, others), others.log_softmax(1)


def split(z: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's logit of its own class (B,), as (B, 1), and those of the others, (B, classes - 1)."""
    column = torch.arange(z.shape[1] - 1, device=z.device)
    return z.gather(1, classes[:, None]), z.gather(1, column + (column >= classes[:, None]))  # skips the own


def own_or_other(own: Tensor, others: Tensor) -> Tensor:
    """Return the logarithms (B, 2) of the probabilities of the own class and of any other, from ``split`` logits."""
    return torch.cat([own, others.logsumexp(1, keepdim=True)], dim=1).log_softmax(1)

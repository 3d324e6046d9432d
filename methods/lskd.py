"""LSKD: distillation from standardised logits."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec, check_choice, check_positive
from methods.dkd import decoupled_losses
from methods.kd import soft_target_loss

EPS = 1e-7  # the authors' guard where all logits are equal


class LSKD(Distiller):
    """Standardised logits: Sun et al. 2024, "Logit Standardization in Knowledge Distillation", arXiv:2403.01427,
    equation 10 and algorithm 1.

        z^ = ( z - mean z ) / std z,  over the classes of each image                z (B, classes)
        base kd:   L_ls = T^2 KL( softmax(z^_t / T) || softmax(z^_s / T) ),  mean over the batch
        base dkd:  L_ls = min(epoch / warmup, 1) (alpha L_tckd + beta L_nckd) of z^ (methods/dkd.py)

    alpha, beta and warmup are used only with base dkd.

    std divides by the number of classes, as in the paper; the authors' code divides by one less. T = 2 and the weights
    0.1 CE + 9 L_ls are the authors' for kd on CIFAR-100. For dkd set ce: 1. The authors' launcher also multiplies alpha
    and beta by 9, but computes beta from alpha and leaves T at 4, so the settings of the published numbers are unclear.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 0.1, "ls": 9.0}
    logits_only: ClassVar[bool] = True
    views: ClassVar[tuple[str, ...]] = ("strong",)
    views_with: ClassVar[tuple[str, object] | None] = ("base", "mlkd")
    used_with: ClassVar[dict[str, tuple[str, str]]] = {
        "alpha": ("base", "dkd"),
        "beta": ("base", "dkd"),
        "warmup": ("base", "dkd"),
    }
    version: ClassVar[int] = 3  # 1 had no warm-up, 2 the standard deviation with n

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        base: Literal["kd", "dkd", "mlkd", "ctkd"] = "kd",
        temperature: float = 2.0,
        alpha: float = 1.0,
        beta: float = 8.0,
        warmup: int = 20,
        reading: Literal["code", "paper"] = "code",
    ):
        super().__init__(student, teacher)
        check_choice("base", base, "kd", "dkd")
        check_positive("temperature", temperature)
        if warmup < 0:
            raise ValueError(f"warmup must be 0 or more epochs, not {warmup}")
        self.base, self.temperature, self.alpha, self.beta, self.warmup = base, temperature, alpha, beta, warmup

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        z_s, z_t = standardise(student.logits), standardise(teacher.logits)
        if self.base == "kd":
            return {"ls": soft_target_loss(z_s, z_t, self.temperature)}
        tckd, nckd = decoupled_losses(z_s, z_t, batch.targets, self.temperature)
        return {"ls": batch.ramp(self.warmup) * (self.alpha * tckd + self.beta * nckd)}


def standardise(z: Tensor) -> Tensor:
    """Return z (B, classes), each row with mean 0 and standard deviation 1; a constant row is 0, without gradient."""
    centred = z - z.mean(1, keepdim=True)
    variance = centred.square().mean(1, keepdim=True)
    varies = variance > 0
    return torch.where(varies, centred / (torch.where(varies, variance, 1.0).sqrt() + EPS), 0.0)

"""LSKD: distillation from standardised logits."""

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec, check_choice
from methods.ctkd import CTKD
from methods.dkd import DKD
from methods.kd import KD
from methods.mlkd import MLKD

EPS = 1e-7  # the authors' guard where all logits are equal


class LSKD(Distiller):
    """Standardised logits: Sun et al. 2024, "Logit Standardization in Knowledge Distillation", arXiv:2403.01427,
    equation 10 and algorithm 1.

        z^ = ( z - mean z ) / std z,  over the classes of each image                z (B, classes)
        base kd:   L_ls = T^2 KL( softmax(z^_t / T) || softmax(z^_s / T) ),  mean over the batch
        base dkd:  L_ls = min(epoch / warmup, 1) (alpha L_tckd + beta L_nckd) of z^ (methods/dkd.py)
        base mlkd: L_ls = L_kd of z^ + L_cc + L_bc of z, and L_ce (methods/mlkd.py)
        base ctkd: L_ls = L_kd of z^ at the trained temperature (methods/ctkd.py)

    alpha, beta and warmup are used only with base dkd, temperature with all bases but ctkd.

    std divides by one less than the number of classes, as in the authors' code: sunshangquan/logit-standardization-KD
    @f6e5aa5, mdistiller/distillers/{KD,DKD,MLKD}.py. With ``reading: paper`` it divides by their number. T = 2 and the
    weights 0.1 CE + 9 L_ls are the authors' for kd and mlkd on CIFAR-100. For dkd set ce: 1; the authors' launcher also
    multiplies alpha and beta by 9. Until @6b58661 it computed beta from that alpha and left T at 4, so the settings of
    the published numbers are unclear. A row of equal logits is 0 and has no gradient.
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
        check_choice("base", base, "kd", "dkd", "mlkd", "ctkd")
        check_choice("reading", reading, "code", "paper")
        self.base, self.alpha, self.beta = base, alpha, beta
        self.correction = 1 if reading == "code" else 0
        methods: dict[str, Distiller] = {
            "kd": KD(student, teacher, temperature=temperature),
            "dkd": DKD(student, teacher, temperature=temperature, warmup=warmup),
            "mlkd": StandardisedMLKD(student, teacher, self.correction, temperature),
            "ctkd": CTKD(student, teacher),
        }
        self.method = methods[base]

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        if self.base != "mlkd":
            student, teacher = (replace(x, logits=standardise(x.logits, self.correction)) for x in (student, teacher))
        terms = self.method(batch, student, teacher)
        factors = {"tckd": self.alpha, "nckd": self.beta}
        parts = [factors.get(name, 1.0) * terms[name] for name in self.method.weights if name != "ce"]
        return {"ls": torch.stack(parts).sum()} | {name: terms[name] for name in terms if name == "ce"}


class StandardisedMLKD(MLKD):
    """MLKD whose divergences compare standardised logits; its other terms and masks read the logits as they are."""

    def __init__(self, student: TapSpec, teacher: TapSpec, correction: int, temperature: float):
        super().__init__(student, teacher, temperature=temperature)
        self.correction = correction

    def divergences(self, z_s: Tensor, z_t: Tensor, temperatures: Tensor) -> Tensor:
        z_s, z_t = (standardise(z, self.correction) for z in (z_s, z_t))
        return super().divergences(z_s, z_t, temperatures)


def standardise(z: Tensor, correction: int) -> Tensor:
    """Return z (B, classes), each row with mean 0 and standard deviation 1; a constant row is 0, without gradient.

    The standard deviation divides by the number of classes less ``correction``.
    """
    centred = z - z.mean(1, keepdim=True)
    variance = centred.square().sum(1, keepdim=True) / max(z.shape[1] - correction, 1)
    return centred / (variance.masked_fill(variance <= 0, torch.inf).sqrt() + EPS)  # inf: such a row is 0

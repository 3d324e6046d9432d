"""CTKD: a temperature that is trained against the student."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.base import Batch, Distiller, Outputs, TapSpec, check_positive
from methods.kd import soft_target_loss


class CTKD(Distiller):
    """Curriculum temperature: Li et al. 2023, "Curriculum Temperature for Knowledge Distillation", arXiv:2211.16231,
    the global temperature of section 3.

        T = lowest_temperature + temperature_range sigmoid(g)
        L_kd = T^2 KL( softmax(z_t / T) || softmax(z_s / T) ),  mean over the batch           z (B, classes)
        gradient of g:  lambda dL_kd/dg,  lambda = -r,  r from reversal_start to reversal by half a cosine
                        over the epochs 1 to reversal_epochs, constant later

    g is one number, trained with the student and decayed like its weights. It is reversed: it makes the task harder. It
    starts at 1, so T starts at 15.6. Defaults and weights are those of the authors' script: zhengli97/CTKD @7d52522,
    train_student.py and models/temp_global.py. The gradient of g is a small difference of large terms, of which float32
    loses 4e-4 in the authors' code: here the loss is computed in float64.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 0.1, "kd": 0.9}
    diagnostics: ClassVar[tuple[str, ...]] = ("temperature",)
    logits_only: ClassVar[bool] = True

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        lowest_temperature: float = 1.0,
        temperature_range: float = 20.0,
        reversal_start: float = 0.0,
        reversal: float = 1.0,
        reversal_epochs: int = 10,
    ):
        super().__init__(student, teacher)
        check_positive("lowest_temperature", lowest_temperature)
        check_positive("temperature_range", temperature_range)
        if reversal_epochs < 0:
            raise ValueError(f"reversal_epochs must be 0 or more epochs, not {reversal_epochs}")
        self.lowest_temperature, self.temperature_range = lowest_temperature, temperature_range
        self.reversal_start, self.reversal, self.reversal_epochs = reversal_start, reversal, reversal_epochs
        self.g = nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        temperature = self.temperature(self.gradient_factor(batch))
        loss = soft_target_loss(student.logits.double(), teacher.logits.double(), temperature)
        return {"kd": loss.to(student.logits.dtype), "temperature": temperature.detach()}

    def gradient_factor(self, batch: Batch) -> float:
        """Return lambda in this epoch."""
        rest = (1 + math.cos(math.pi * batch.ramp(self.reversal_epochs))) / 2
        return -(self.reversal + (self.reversal_start - self.reversal) * rest)

    def temperature(self, gradient_factor: float) -> Tensor:
        """Return T, a float64 scalar whose gradient with respect to g is multiplied by the factor."""
        g = self.g.double()
        reversed_g = torch.lerp(g.detach(), g, gradient_factor)  # equal to g
        return self.lowest_temperature + self.temperature_range * reversed_g.sigmoid()

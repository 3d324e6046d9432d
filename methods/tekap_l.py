"""TeKAP-L: soft targets of a teacher and of noisy copies of its logits."""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec, check_at_least_1, check_choice, check_positive


class TeKAPL(Distiller):
    """Perturbed teacher logits: Hossain et al. 2025, "Single Teacher, Multiple Perspectives: Teacher Knowledge
    Augmentation for Enhanced Knowledge Distillation", ICLR 2025.

        z_i = (1 - noise) z_t + noise e_i,  i = 1 ... copies;  e_i standard normal, new in each step      z (B, classes)
        KL(z) = T^2 KL( softmax(z / T) || softmax(z_s / T) ),  mean over the batch
        L_kd = KL(z_t) + copy_weight sum_i KL(z_i)

    This, the defaults and 0.1 CE + 0.9 L_kd are the authors' code: mdimtiazh/TeKAP @279d380,
    distiller_zoo/Ours_TeKAP_L.py, and its README. The weights of the divergences sum to 1 + copies x copy_weight, by
    default 3.4: a fair control is kd with weight 3.06. ``reading: paper`` makes them sum to 1, which is how we remember
    the paper: L_kd = (1 - copy_weight) KL(z_t) + copy_weight mean_i KL(z_i).
    """

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
        check_positive("temperature", temperature)
        check_at_least_1("copies", copies)
        check_choice("reading", reading, "code", "paper")
        if not 0 <= noise <= 1:
            raise ValueError(f"noise must be between 0 and 1, not {noise}")
        if copy_weight < 0 or (reading == "paper" and copy_weight > 1):
            most = " and, as a share, at most 1" * (reading == "paper")
            raise ValueError(f"copy_weight must be 0 or more{most}, not {copy_weight}")
        self.temperature, self.copies, self.noise = temperature, copies, noise
        self.copy_weight, self.reading = copy_weight, reading

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        z_t = teacher.logits[:, None]
        noise = batch.random.normal(self.copies, z_t.shape[2], dtype=z_t.dtype)
        targets = torch.cat([z_t, torch.lerp(z_t, noise, self.noise)], dim=1)  # (B, 1 + copies, classes)
        log_p_t = F.log_softmax(targets / self.temperature, dim=2)
        log_p_s = F.log_softmax(student.logits / self.temperature, dim=1)[:, None].expand_as(log_p_t)
        kl = F.kl_div(log_p_s, log_p_t, reduction="none", log_target=True).sum(2).mean(0) * self.temperature**2
        if self.reading == "paper":
            return {"kd": (1 - self.copy_weight) * kl[0] + self.copy_weight * kl[1:].mean()}
        return {"kd": kl[0] + self.copy_weight * kl[1:].sum()}

"""NKD: soft targets of the target class and, normalised, of the others."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec, check_positive
from methods.dkd import split


class NKD(Distiller):
    """Normalised distillation: Yang et al. 2023, "From Knowledge Distillation to Self-Knowledge Distillation: A Unified
    Approach with Normalized Loss and Customized Soft Labels", arXiv:2303.13005.

        L_target = - p_t(target) log p_s(target)                        p = softmax(z), z (B, classes)
        L_others = - T^2 sum_c q_t(c) log q_s(c)                        q = softmax(z / T without the target class)
        means over the batch

    Both are cross-entropies, so neither is 0 where the student equals the teacher. Only q has the temperature. The
    weight of L_others is the authors' gamma. T = 1 and gamma 1.5 are theirs for ImageNet, T = 3 and gamma 3.5 for
    CIFAR-100, ResNet34 -> 18 (github.com/yzd-v/cls_KD @1e5d48f, mmcls/models/dis_losses/nkd.py and its configuration
    files). From 2023-07-17 to 2023-10-10 that code kept the target among q's classes. The target of mixed images is the
    class of the larger share, as there.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "target": 1.0, "others": 1.5}
    logits_only: ClassVar[bool] = True

    def __init__(self, student: TapSpec, teacher: TapSpec, *, temperature: float = 1.0):
        super().__init__(student, teacher)
        check_positive("temperature", temperature)
        self.temperature = temperature

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        z_s, z_t, targets, temperature = student.logits, teacher.logits, batch.targets, self.temperature
        confidence = z_t.softmax(1).gather(1, targets[:, None])[:, 0]
        (_, others_s), (_, others_t) = split(z_s, targets), split(z_t, targets)
        others = F.cross_entropy(others_s / temperature, (others_t / temperature).softmax(1))
        return {
            "target": (confidence * F.cross_entropy(z_s, targets, reduction="none")).mean(),
            "others": temperature**2 * others,
        }

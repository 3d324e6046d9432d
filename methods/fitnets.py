"""Hints from an intermediate feature map."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Batch, Distiller, Outputs, TapSpec


class FitNets(Distiller):
    """Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", arXiv:1412.6550, equation 3.

        L_hint = || u(f_t) - r(f_s) ||^2,  mean over batch, channels and positions

    f_s (B, C_s, H_s, W_s) and f_t (B, C_t, H_t, W_t) are the two models' maps at ``tap``; r, trained with the student,
    brings f_s to f_t's shape. The paper trains up to the hint first and distils logits afterwards; as in CRD's
    comparison (Tian et al. 2020, arXiv:1910.10699), whose weights 1 CE + 100 hint are the defaults, this is one stage:
    the hint beside the cross-entropy throughout.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "hint": 100.0}
    defined_for: ClassVar[tuple[str, ...]] = ("classification", "detection")

    def __init__(self, student: TapSpec, teacher: TapSpec, *, tap: str = "stage2"):
        super().__init__(student, teacher)
        self.student_tap = student.resolve(tap)
        self.teacher_tap = teacher.resolve(tap)
        self.regressor = ConvRegressor(
            student.channels[self.student_tap],
            teacher.channels[self.teacher_tap],
            student.sizes[self.student_tap],
            teacher.sizes[self.teacher_tap],
        )

    @property
    def student_taps(self) -> tuple[str, ...]:
        return (self.student_tap,)

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        return (self.teacher_tap,)

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        hint = self.regressor(student.features[self.student_tap])
        return {"hint": F.mse_loss(hint, teacher.features[self.teacher_tap])}


class ConvRegressor(nn.Module):
    """Convolution, batch norm and ReLU from a map (B, C_s, H_s, W_s) to (B, C_t, H_t, W_t).

    Equal sizes take a 1x1 convolution, a halving or doubling the usual strided ones; any other larger map loses its
    margin to an unpadded kernel. ``relu``: whether the ReLU is there.
    """

    def __init__(self, c_s: int, c_t: int, size_s: tuple[int, int], size_t: tuple[int, int], relu: bool = True):
        super().__init__()
        (h_s, w_s), (h_t, w_t) = size_s, size_t
        self.conv: nn.Module
        if (h_s, w_s) == (2 * h_t, 2 * w_t):
            self.conv = nn.Conv2d(c_s, c_t, 3, stride=2, padding=1)
        elif (2 * h_s, 2 * w_s) == (h_t, w_t):
            self.conv = nn.ConvTranspose2d(c_s, c_t, 4, stride=2, padding=1)
        elif h_s >= h_t and w_s >= w_t:
            self.conv = nn.Conv2d(c_s, c_t, (1 + h_s - h_t, 1 + w_s - w_t))
        else:
            raise ValueError(f"no regressor from a {h_s}x{w_s} map to {h_t}x{w_t}: choose a tap where they are closer")
        self.bn = nn.BatchNorm2d(c_t)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return F.relu(x) if self.relu else x

"""FitNets: hints from an intermediate feature map."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from methods.alignment import shrink, to_common_grid
from methods.base import Batch, Distiller, Outputs, TapSpec, resolve_both


class FitNets(Distiller):
    """Hint regression: Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", arXiv:1412.6550, equation 3.

        L_hint = || f_t - r(f_s) ||^2,  mean over batch, channels and positions

    f_s (B, C_s, H_s, W_s) and f_t (B, C_t, H_t, W_t) are the two models' maps at ``tap``; r, trained with the student,
    maps f_s to f_t's shape, or both are averaged onto their smaller grid, see ``ConvRegressor``. The paper first trains
    the student up to the hint and then distils logits. Here, as in CRD's comparison (Tian et al. 2020,
    arXiv:1910.10699), one stage has both the hint and the cross-entropy; its weights 1 CE + 100 hint are the defaults.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "hint": 100.0}
    defined_for: ClassVar[tuple[str, ...]] = ("classification", "detection")

    def __init__(self, student: TapSpec, teacher: TapSpec, *, tap: str = "stage2"):
        super().__init__(student, teacher)
        self.student_tap, self.teacher_tap = resolve_both(student, teacher, tap)
        self.student_taps, self.teacher_taps = (self.student_tap,), (self.teacher_tap,)
        self.regressor = ConvRegressor(
            student.channels[self.student_tap],
            teacher.channels[self.teacher_tap],
            student.sizes[self.student_tap],
            teacher.sizes[self.teacher_tap],
        )

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        hint = self.regressor(student.features[self.student_tap])
        return {"hint": F.mse_loss(*to_common_grid(hint, teacher.features[self.teacher_tap]))}


class ConvRegressor(nn.Module):
    """Convolution, batch norm and, unless ``relu`` is False, ReLU: from a map (B, C_s, H_s, W_s) to (B, C_t, H_t, W_t).

    The convolution is 1x1 for equal sizes, strided or transposed for half or double the size, and otherwise, if the
    student's map is larger, an unpadded kernel that cuts its margin. Any other map of the student is averaged onto a
    grid of the smaller height and the smaller width, which is then the result's, and the convolution is 1x1.
    """

    def __init__(self, c_s: int, c_t: int, size_s: tuple[int, int], size_t: tuple[int, int], relu: bool = True):
        super().__init__()
        (h_s, w_s), (h_t, w_t) = size_s, size_t
        self.conv: nn.Module
        self.grid: tuple[int, int] | None = None
        if (h_s, w_s) == (2 * h_t, 2 * w_t):
            self.conv = nn.Conv2d(c_s, c_t, 3, stride=2, padding=1)
        elif (2 * h_s, 2 * w_s) == (h_t, w_t):
            self.conv = nn.ConvTranspose2d(c_s, c_t, 4, stride=2, padding=1)
        elif h_s >= h_t and w_s >= w_t:
            self.conv = nn.Conv2d(c_s, c_t, (1 + h_s - h_t, 1 + w_s - w_t))
        else:
            self.grid = min(h_s, h_t), min(w_s, w_t)
            self.conv = nn.Conv2d(c_s, c_t, 1)
        self.bn = nn.BatchNorm2d(c_t)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(shrink(x, self.grid) if self.grid else x))
        return F.relu(x) if self.relu else x

"""VID: variational information distillation."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.alignment import to_common_grid
from methods.base import Batch, Outputs, TapSpec
from methods.tap_pairs import TapPairs, total

EPS = 1e-5  # least variance; part of the published numbers


class VID(TapPairs):
    """Variational information: Ahn et al. 2019, "Variational Information Distillation for Knowledge Transfer",
    arXiv:1904.05835, equations 5-7.

        L_vid = sum over taps of 1/2 mean [ (f_t - mu(f_s))^2 / s^2 + log s^2 ],  mean over batch, channels, positions
        s^2_c = log(1 + exp(a_c)) + 1e-5

    mu, three 1x1 convolutions with ReLU between them, maps the student's map (B, C_s, H, W) to the teacher's width; the
    larger map is first averaged onto the smaller one's grid. mu and a (``log_scale``) are trained with the student,
    under the recipe's weight decay. All stages, weight 1 and the initial variance 5 are those of CRD's comparison
    (Tian et al. 2020, arXiv:1910.10699). The diagnostic ``variance`` is the mean s^2.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "information": 1.0}
    diagnostics: ClassVar[tuple[str, ...]] = ("variance",)

    def __init__(self, student: TapSpec, teacher: TapSpec, *, taps: str = "stages", initial_variance: float = 5.0):
        super().__init__(student, teacher, taps)
        if initial_variance <= EPS:
            raise ValueError(f"initial_variance must be above {EPS}, not {initial_variance}")
        self.gaussians = nn.ModuleList(Gaussian(c_s, c_t, c_t, initial_variance) for c_s, c_t in self.widths)

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        pairs = zip(self.gaussians, self.maps(student, teacher), strict=True)
        terms, variances = zip(*(gaussian(*maps) for gaussian, maps in pairs), strict=True)
        return {"information": total(terms), "variance": torch.cat(variances).mean().detach()}


class Gaussian(nn.Module):
    """The distribution of the teacher's map given the student's: a small network's mean, one variance per channel."""

    def __init__(self, c_s: int, c_mid: int, c_t: int, initial_variance: float):
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(c_s, c_mid, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(c_mid, c_mid, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(c_mid, c_t, 1, bias=False),
        )
        self.log_scale = nn.Parameter(torch.full((c_t,), math.log(math.expm1(initial_variance - EPS))))

    def forward(self, f_s: Tensor, f_t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the negative log-likelihood per value, without its constant, and the variances (C_t,)."""
        f_s, f_t = to_common_grid(f_s, f_t)
        variance = F.softplus(self.log_scale) + EPS
        v = variance[:, None, None]
        return 0.5 * ((self.mean(f_s) - f_t).square() / v + v.log()).mean(), variance

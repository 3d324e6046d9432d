"""AT: attention transfer."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from methods.alignment import to_common_grid
from methods.base import Batch, Outputs, TapSpec, check_at_least_1
from methods.tap_pairs import TapPairs, total
from methods.unit_vectors import unit


class AT(TapPairs):
    """Attention transfer: Zagoruyko, Komodakis 2017, "Paying More Attention to Attention", arXiv:1612.03928, eq. 2.

        a(f) = mean_c |f_c|^p  as a vector (H W) of length 1        f (B, C, H, W)
        L_at = sum over taps of mean ( a(f_s) - a(f_t) )^2,  mean over batch and positions

    A larger map is first averaged onto the smaller one's grid. The weight 1000, all stages and the mean in place of the
    paper's norm are those of CRD's comparison (Tian et al. 2020, arXiv:1910.10699). The attention of a map of zeros is
    0.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "attention": 1000.0}

    def __init__(self, student: TapSpec, teacher: TapSpec, *, taps: str = "stages", p: float = 2.0):
        super().__init__(student, teacher, taps)
        check_at_least_1("p", p)
        self.p = p

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {"attention": total(attention_loss(s, t, self.p) for s, t in self.maps(student, teacher))}


def attention_loss(f_s: Tensor, f_t: Tensor, p: float) -> Tensor:
    """Return the term of one pair of maps, a scalar."""
    # |f|^2 = f^2, without a map of |f|
    powers = (f.square() if p == 2 else f.abs().pow(p) for f in to_common_grid(f_s, f_t))
    a_s, a_t = (unit(power.mean(1).flatten(1)) for power in powers)
    return F.mse_loss(a_s, a_t)

"""NST: neuron selectivity transfer."""

from typing import ClassVar

import torch
from torch import Tensor

from methods.alignment import to_common_grid
from methods.base import Batch, Outputs, TapSpec
from methods.tap_pairs import TapPairs, total
from methods.unit_vectors import unit


class NST(TapPairs):
    """Neuron selectivity transfer: Huang, Wang 2017, "Like What You Like: Knowledge Distill via Neuron Selectivity
    Transfer", arXiv:1707.01219, equations 4-6 with the polynomial kernel k(x, y) = (x . y)^2.

        L_nst = sum over taps of [ mean_cc' k(t_c, t_c') + mean_cc' k(s_c, s_c') - 2 mean_cc' k(s_c, t_c') ]

    s_c and t_c (H W) are the channels of a map, each scaled to length 1. Means also run over the batch. The sum in
    brackets is the squared maximum mean discrepancy between the two models' channels. The larger map is first averaged
    onto the smaller one's grid. All stages and the weight 50 are those of CRD's comparison (Tian et al. 2020,
    arXiv:1910.10699).
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "selectivity": 50.0}

    def __init__(self, student: TapSpec, teacher: TapSpec, *, taps: str = "stages"):
        super().__init__(student, teacher, taps)

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {"selectivity": total(discrepancy(s, t) for s, t in self.maps(student, teacher))}


def discrepancy(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Return the term of one pair of maps, a scalar."""
    s, t = (unit(f.flatten(2), dim=2) for f in to_common_grid(f_s, f_t))
    return kernel_mean(t, t) + kernel_mean(s, s) - 2 * kernel_mean(s, t)


def kernel_mean(x: Tensor, y: Tensor) -> Tensor:
    """Return k averaged over the batch and pairs of channels, for x (B, C, N) and y (B, C', N)."""
    return torch.bmm(x, y.transpose(1, 2)).square().mean()

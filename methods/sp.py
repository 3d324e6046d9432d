"""SP: similarity-preserving distillation."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from methods.base import Batch, Outputs, TapSpec
from methods.tap_pairs import TapPairs, total
from methods.unit_vectors import unit


class SP(TapPairs):
    """Similarity of images: Tung, Mori 2019, "Similarity-Preserving Knowledge Distillation", arXiv:1907.09682,
    equations 1-4.

        G(f) = f f^T, rows scaled to length 1       f (B, C H W), a map's values per image; G (B, B)
        L_sp = sum over taps of || G(f_s) - G(f_t) ||_F^2 / B^2

    The two models' widths and sizes may differ. The default tap, the last map, and the weight 3000 are those of CRD's
    comparison (Tian et al. 2020, arXiv:1910.10699). All images of the global batch are compared with each other (with
    ``accumulate``, those of a micro-batch).
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "similarity": 3000.0}

    def __init__(self, student: TapSpec, teacher: TapSpec, *, taps: str = "last"):
        super().__init__(student, teacher, taps)

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {"similarity": total(similarity_loss(s, t) for s, t in self.maps(student, teacher))}


def similarity_loss(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Return the term of one pair of maps (B, ...), a scalar."""
    rows_s, rows_t = f_s.flatten(1), f_t.flatten(1)
    return F.mse_loss(unit(rows_s @ rows_s.T), unit(rows_t @ rows_t.T))

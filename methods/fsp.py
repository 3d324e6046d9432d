"""FSP: flow of solution procedure, products of neighbouring feature maps."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.alignment import to_common_grid
from methods.base import Batch, Outputs, TapSpec
from methods.tap_pairs import ANY_SHAPE, FirstStagePairs, total


class FSP(FirstStagePairs):
    """Flow between layers: Yim et al. 2017, "A Gift from Knowledge Distillation: Fast Optimization, Network
    Minimization and Transfer Learning", CVPR 2017, equations 1 and 2.

        G_i = F_(i+1) F_i^T / (H W)         F_i (C_i, H W): the map at tap i; G_i (C_(i+1), C_i)
        first stage:  L_flow = sum over i of mean ( G_i^s - G_i^t )^2,  mean over batch and entries
        main stage:   only the cross-entropy

    The larger of two neighbouring maps is averaged onto the smaller one's grid. The two models' maps must have the same
    widths; their sizes may differ. The first stage trains the student up to the last tap. Taps (the stem and all
    stages), the mean in place of the paper's sum, and 30 epochs are those of CRD's comparison (Tian et al. 2020,
    arXiv:1910.10699).
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec, *, taps: str = "stem,stages", first_epochs: int = 30):
        super().__init__(student, teacher, taps, first_epochs)
        if len(self.names) < 2:
            raise ValueError(f"FSP needs two taps or more, not only {taps!r}")
        for s, t in self.names:
            if student.channels[s] != teacher.channels[t]:
                raise ValueError(
                    f"FSP needs maps of the same width; the student's {s} has {student.channels[s]} channels, the "
                    f"teacher's {t} has {teacher.channels[t]}; {ANY_SHAPE}"
                )

    def first_terms(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        maps_s, maps_t = zip(*self.maps(student, teacher), strict=True)
        return {"flow": total(F.mse_loss(s, t) for s, t in zip(flows(maps_s), flows(maps_t), strict=True))}


def flows(maps: Sequence[Tensor]) -> list[Tensor]:
    """Return G_i (B, C_(i+1), C_i) for each map (B, C_i, H_i, W_i) except the last."""
    return [flow(*to_common_grid(earlier, later)) for earlier, later in pairwise(maps)]


def flow(earlier: Tensor, later: Tensor) -> Tensor:
    """Return G_i (B, C_later, C_earlier) of two maps of the same size (B, C, H, W)."""
    a, b = earlier.flatten(2), later.flatten(2)
    return torch.bmm(b, a.transpose(1, 2)) / a.shape[2]

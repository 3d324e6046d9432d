"""AB: distillation of activation boundaries."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.alignment import to_common_grid
from methods.base import Batch, Outputs, TapSpec, check_positive
from methods.fitnets import ConvRegressor
from methods.tap_pairs import FirstStagePairs, total


class AB(FirstStagePairs):
    """Activation boundaries: Heo et al. 2019, "Knowledge Transfer via Distillation of Activation Boundaries Formed by
    Hidden Neurons", AAAI 2019, arXiv:1811.03233, the loss with margin and connectors.

        first stage:  L_boundary = 3/1000 sum over n taps, i = 1..n, of 2^(i-n) / B  sum_(b,c,h,w)  d( r(f_s), f_t )
                      d(s, t) = max(margin - s, 0)^2 where t > 0, else max(margin + s, 0)^2
        main stage:   only the cross-entropy

    f_s and f_t (B, C, H, W) are the maps before the ReLU of each stage: only the sign of a neuron's response counts. r
    is a convolution with batch norm to the teacher's shape, or the identity where the shapes are equal; f_t is averaged
    onto r's grid where that is smaller, see ``fitnets.ConvRegressor``. The first stage trains r and the student up to
    the last tap. The scale 3/1000, the doubling from tap to tap, margin 1 and 30 epochs are those of CRD's comparison
    (Tian et al. 2020, arXiv:1910.10699).
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0}

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        taps: str = "stages.preact",
        margin: float = 1.0,
        first_epochs: int = 30,
    ):
        super().__init__(student, teacher, taps, first_epochs)
        check_positive("margin", margin)
        self.margin = margin
        self.connectors = nn.ModuleList(connector(student, s, teacher, t) for s, t in self.names)

    def first_terms(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        pairs = zip(self.connectors, self.maps(student, teacher), strict=True)
        losses = [boundary_loss(*to_common_grid(connect(s), t), self.margin) for connect, (s, t) in pairs]
        return {"boundary": total(loss / 2 ** (len(losses) - 1 - i) for i, loss in enumerate(losses))}


def connector(student: TapSpec, s: str, teacher: TapSpec, t: str) -> nn.Module:
    """Return r, from the student's tap to the shape of the teacher's."""
    if (student.channels[s], student.sizes[s]) == (teacher.channels[t], teacher.sizes[t]):
        return nn.Identity()
    return ConvRegressor(student.channels[s], teacher.channels[t], student.sizes[s], teacher.sizes[t], relu=False)


def boundary_loss(s: Tensor, t: Tensor, margin: float) -> Tensor:
    """Return 3/1000 of d, summed over maps (B, C, H, W) and divided by B; a scalar."""
    side = torch.where(t > 0, 1.0, -1.0).to(s)
    return 3 / 1000 * (margin - side * s).relu().square().sum() / len(s)

"""OFD: overhaul of feature distillation."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from methods.alignment import to_common_grid
from methods.base import Batch, Outputs, TapSpec, check_choice
from methods.tap_pairs import TapPairs, total


class OFD(TapPairs):
    """Overhaul of feature distillation: Heo et al. 2019, "A Comprehensive Overhaul of Feature Distillation",
    arXiv:1904.01866, equations 1-4.

        t' = max(f_t, m)                       f_t (B, C, H, W): the teacher's map before the ReLU of each stage
        m_c = E[ f_t,c | f_t,c < 0 ]           the margin: how negative a response must be to count as negative
        L_ofd = sum over n taps, i = 1..n, of 2^(i-n) / B  sum_(b,c,h,w)  d( r(f_s), t' )
        d(s, t) = 0 where s <= t <= 0, else (s - t)^2

    r, a convolution with batch norm trained with the student, maps the student's pre-activation to the teacher's width.
    Where sizes differ, the larger map is averaged onto the smaller one's grid. The weight 0.001 is mdistiller's for
    CIFAR-100.

    The margin is the mean of the teacher's negative responses over all batches so far and all processes, as the paper
    defines it. The authors' code instead assumes a Gaussian channel with the shift and scale of the stage's last batch
    norm, which ignores the shortcut's contribution; the two agree where the map is that batch norm's output. A channel
    that has never been negative has margin 0.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "feature": 0.001}

    def __init__(
        self, student: TapSpec, teacher: TapSpec, *, taps: str = "stages.preact", kernel_size: Literal[1, 3] = 1
    ):
        super().__init__(student, teacher, taps)
        check_choice("kernel_size", kernel_size, 1, 3)
        self.connectors = nn.ModuleList(connector(c_s, c_t, kernel_size) for c_s, c_t in self.widths)
        self.margins = nn.ModuleList(Margin(c_t) for _, c_t in self.widths)

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        triples = zip(self.connectors, self.margins, self.maps(student, teacher), strict=True)
        losses = [partial_loss(connect(s), t, margin(t)) for connect, margin, (s, t) in triples]
        return {"feature": total(loss / 2 ** (len(losses) - 1 - i) for i, loss in enumerate(losses))}


def connector(c_s: int, c_t: int, kernel_size: int) -> nn.Sequential:
    """Return r, a convolution and a batch norm, with the initialisation of a layer before a ReLU."""
    conv = nn.Conv2d(c_s, c_t, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(c_t))


def partial_loss(s: Tensor, t: Tensor, margin: Tensor) -> Tensor:
    """Return d summed over maps (B, C, H, W) and divided by B, for a ``margin`` (C,)."""
    s, t = to_common_grid(s, t)
    t = torch.maximum(t, margin[:, None, None])
    return ((s - t).square() * ((s > t) | (t > 0))).sum() / len(s)


class Margin(nn.Module):
    """The mean of each channel's negative values in all maps (B, C, H, W) so far; 0 before the first."""

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("sum_and_count", torch.zeros(2, channels, dtype=torch.float64))
        self.sum_and_count: Tensor

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        batch = torch.stack([x.clamp(max=0).sum((0, 2, 3)), (x < 0).sum((0, 2, 3))]).double()
        self.sum_and_count += batch
        return (self.sum_and_count[0] / self.sum_and_count[1].clamp(min=1)).to(x)

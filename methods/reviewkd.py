"""ReviewKD: knowledge review, each of the teacher's maps is the target of a fusion of the student's deeper maps."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.alignment import nearest, shrink
from methods.base import Batch, Outputs, TapSpec, check_at_least_1
from methods.tap_pairs import TapPairs, expand_taps, total


class ReviewKD(TapPairs):
    """Knowledge review: Chen et al. 2021, "Distilling Knowledge via Knowledge Review", arXiv:2104.09044, equations 5-7.

        h_i, g_i = ABF( s_i, g_(i+1) ),  i = n..1       s_i: the student's maps by depth; s_n the pooled feature
        L_review = sum_i HCL( h_i, t_i )                t_i: the teacher's, before any ReLU; t_n the pooled feature

    ABF, trained with the student: x = bn(conv1x1(s_i)), with ``mid`` channels; y = g_(i+1) enlarged to x's grid;
    a, b = sigmoid(conv1x1([x, y])), (B, 2, H, W); g_i = a x + b y, resized to t_i's grid; h_i = bn(conv3x3(g_i)), with
    t_i's width. The deepest has no y, a or b. HCL(h, t) is the mean squared error of the maps, and of the maps averaged
    onto 4x4, 2x2 and 1x1 (if below the map's height), with weights 1, 1/2, 1/4, 1/8 divided by their sum.

    ``mid`` is the student's pooled width or ``max_mid``, whichever is less. Weight 5 is the authors' for most CIFAR-100
    pairs (0.6 for resnet56 -> resnet20, 1 for resnet110 -> resnet32, 8 for resnet32x4 -> ShuffleV2). As in their code,
    the term is multiplied by min(epoch / warmup, 1), with epochs from 1. Their warmup of 20 is for 240 epochs; 0 turns
    it off.

    For detectors, s_i and t_i are the levels of the feature pyramid, the coarsest last, without a pooled feature. The
    authors' weights for Faster R-CNN are 1.2 (R101 -> R18), 1 (R101 -> R50) and 2 (R50 -> MobileNetV2).
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "review": 5.0}
    defined_for: ClassVar[tuple[str, ...]] = ("classification", "detection")
    version: ClassVar[int] = 2  # 1 had no warm-up

    def __init__(
        self, student: TapSpec, teacher: TapSpec, *, student_preact: bool = False, max_mid: int = 512, warmup: int = 20
    ):
        stages = expand_taps(teacher, "stages")
        before = (f"{stage}.preact" if f"{stage}.preact" in teacher.channels else stage for stage in stages)
        super().__init__(student, teacher, "stages.preact" if student_preact else "stages", ",".join(before))
        check_at_least_1("max_mid", max_mid)
        if warmup < 0:
            raise ValueError(f"warmup must be 0 or more epochs, not {warmup}")
        self.warmup = warmup
        self.pooled = student.pooled
        widths = self.widths + [(student.embedding_dim, teacher.embedding_dim)] * self.pooled
        mid = min(max_mid, widths[-1][0])
        deepest = len(widths) - 1
        self.fusions = nn.ModuleList(Fusion(c_s, mid, c_t, i < deepest) for i, (c_s, c_t) in enumerate(widths))

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        pairs = list(self.maps(student, teacher))
        if self.pooled:
            pairs.append((student.embedding[:, :, None, None], teacher.embedding[:, :, None, None]))
        fused, losses = None, []
        for fusion, (s, t) in reversed(list(zip(self.fusions, pairs, strict=True))):
            review, fused = fusion(s, fused, t.shape[2:])
            losses.append(context_loss(review, t))
        return {"review": batch.ramp(self.warmup) * total(losses)}


class Fusion(nn.Module):
    """ABF, attention-based fusion. ``fuses`` is False for the deepest, which has no deeper result to fuse."""

    def __init__(self, c_s: int, mid: int, c_t: int, fuses: bool):
        super().__init__()
        enter, leave = nn.Conv2d(c_s, mid, 1, bias=False), nn.Conv2d(mid, c_t, 3, padding=1, bias=False)
        nn.init.kaiming_uniform_(enter.weight, a=1)
        nn.init.kaiming_uniform_(leave.weight, a=1)
        self.enter = nn.Sequential(enter, nn.BatchNorm2d(mid))
        self.attend = nn.Conv2d(2 * mid, 2, 1) if fuses else None
        self.leave = nn.Sequential(leave, nn.BatchNorm2d(c_t))

    def forward(self, s: Tensor, deeper: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        """Return h (B, C_t, *size) and g (B, mid, *size)."""
        x = self.enter(s)
        if self.attend is not None:
            assert deeper is not None
            y = nearest(deeper, x.shape[2:])
            a, b = self.attend(torch.cat([x, y], 1)).sigmoid().split(1, dim=1)
            x = a * x + b * y
        x = nearest(x, size)
        return self.leave(x), x


def context_loss(h: Tensor, t: Tensor) -> Tensor:
    """Return HCL, the hierarchical context loss, of two maps of the same shape; a scalar."""
    levels = [F.mse_loss(h, t)]
    levels += [F.mse_loss(shrink(h, (n, n)), shrink(t, (n, n))) for n in (4, 2, 1) if n < h.shape[2]]
    weights = [0.5**i for i in range(len(levels))]
    return total(w / sum(weights) * loss for w, loss in zip(weights, levels, strict=True))

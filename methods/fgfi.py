"""FGFI: fine-grained feature imitation, of the teacher's maps near objects."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Batch, Outputs, TapSpec
from methods.detection import DetectionBatch, DetectorOutputs
from methods.tap_pairs import TapPairs


class FGFI(TapPairs):
    """Imitation near objects: Wang et al. 2019, "Distilling Object Detectors with Fine-grained Feature Imitation",
    arXiv:1906.03609, equations 1-3.

        near(o) = positions with an anchor a of IoU(a, o) > threshold max_a IoU(a, o)     for each object o of the image
        I       = the union of near(o)                                                    (H, W), on each map
        L       = 1 / (2 N) sum_I || r(f_s) - f_t ||^2,   N the number of positions in all of the image's I

    f_s (C_s, H, W) and f_t (C_t, H, W) are the two models' maps at each of ``taps``; r, trained with the student, is a
    3x3 convolution and a ReLU. Weight 0.01 and threshold 0.5 are the paper's. A batch's loss is the mean of L over its
    images; L is 0 for an image without objects. The paper counts N over a batch; here it is counted per image, so that
    a rank needs only its own images.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "imitation": 0.01}
    diagnostics: ClassVar[tuple[str, ...]] = ("imitated",)  # the share of all positions that I covers
    defined_for: ClassVar[tuple[str, ...]] = ("detection",)

    def __init__(self, student: TapSpec, teacher: TapSpec, *, taps: str = "stages", threshold: float = 0.5):
        super().__init__(student, teacher, taps)
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, not {threshold}")
        for s, t in self.names:
            if student.sizes[s] != teacher.sizes[t]:
                raise ValueError(f"the student's {s} and the teacher's {t} are not of one size")
            if not s.startswith("p"):
                raise ValueError(f"{s} has no anchors: name levels of the feature pyramid")
        self.threshold = threshold
        self.adapt = nn.ModuleList(nn.Conv2d(c_s, c_t, 3, padding=1) for c_s, c_t in self.widths)

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        assert isinstance(batch, DetectionBatch) and isinstance(student, DetectorOutputs)
        total = student.logits.new_zeros(len(batch.images))
        imitated, positions = total.clone(), 0
        for (tap, _), adapt, (s, t) in zip(self.names, self.adapt, self.maps(student, teacher), strict=True):
            boxes = [o.boxes for o in batch.objects]
            mask = torch.stack([near_objects(student.anchors[tap], b, self.threshold) for b in boxes])
            squared = (F.relu(adapt(s)) - t).square().sum(1)  # (B, H, W)
            total = total + (squared * mask).sum((1, 2))
            imitated += mask.sum((1, 2))
            positions += mask[0].numel()
        return {"imitation": (total / (2 * imitated.clamp(min=1))).mean(), "imitated": (imitated / positions).mean()}


def near_objects(anchors: Tensor, boxes: Tensor, threshold: float) -> Tensor:
    """Return I (H, W), bool: the positions of ``anchors`` (H, W, A, 4) near any of the ``boxes`` (N, 4)."""
    if len(boxes) == 0:
        return torch.zeros(anchors.shape[:2], dtype=torch.bool, device=anchors.device)
    overlap = iou(anchors.flatten(0, 2), boxes)  # (H W A, N)
    limit = threshold * overlap.amax(0)
    # A box that overlaps no anchor of this map is near none of them.
    near = (overlap > limit) & (limit > 0)
    return near.any(1).view(anchors.shape[:3]).any(2)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union (N, M) of boxes (N, 4) and (M, 4), given as x1, y1, x2, y2."""
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b))
    return shared / (area_a[:, None] + area_b - shared)

"""PKD: correlation of the two models' maps, channel by channel."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Batch, Outputs, TapSpec
from methods.tap_pairs import TapPairs, total

EPS = 1e-6  # the authors' guard of the division; part of the published numbers
CONSTANT = 1e-3  # a channel is constant if its std is at most this share of the map's,
ROUNDING = 1e-5  # or this share of its own mean


class PKD(TapPairs):
    """Pearson correlation of maps: Cao et al. 2022, "PKD: General Distillation Framework for Object Detectors via
    Pearson Correlation Coefficient", arXiv:2207.02039. It is as in mmrazor (github.com/open-mmlab/mmrazor
    @90c7af1, mmrazor/models/losses/pkd_loss.py).

        n(f) = (f - mean) / (std + 1e-6)       each channel, over batch and positions; std with N - 1, N = B H W
        L    = sum over taps of  1/2 mean ( n(f_s) - n(f_t) )^2  =  (N - 1) / N (1 - r),   r averaged over channels

    f_s and f_t (B, C, H, W) are the two models' maps, of equal channels: there is no layer between them. Where sizes
    differ, f_s (or f_t, with ``resize_student: false``) is resized to the other's by bilinear interpolation. mmrazor
    compares heights alone.

    mmrazor's levels are the first four of five: taps ``p2, p3, p4, p5`` of Faster R-CNN, ``p3, p4, p5, p6`` of
    RetinaNet. Its weights are 6 for two-stage detectors, the default, and 10 for RetinaNet and RepPoints.

    A channel that is constant gets no gradient here and counts as zeros, so that its r is 0. In mmrazor it is divided
    by about 1e-6, which makes its gradients a million times the others'.

    The statistics of classifiers are the global batch's, those of detectors one process's (as in mmrazor), and with
    ``accumulate`` a micro-batch's: there results depend on the number of processes.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "correlation": 6.0}
    defined_for: ClassVar[tuple[str, ...]] = ("classification", "detection")

    def __init__(self, student: TapSpec, teacher: TapSpec, *, taps: str = "stages", resize_student: bool = True):
        super().__init__(student, teacher, taps)
        for (s, t), (c_s, c_t) in zip(self.names, self.widths, strict=True):
            if c_s != c_t:
                raise ValueError(
                    f"pkd compares maps of equal channels, but the student's {s} has {c_s} and the teacher's {t} {c_t}"
                )
        self.resize_student = resize_student

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {"correlation": total(self.compare(s, t) for s, t in self.maps(student, teacher))}

    def compare(self, s: Tensor, t: Tensor) -> Tensor:
        """Return the term of one pair of maps, a scalar."""
        if self.resize_student:
            s = resize(s, t.shape[2:])
        else:
            t = resize(t, s.shape[2:])
        return F.mse_loss(normalise(s), normalise(t)) / 2


def resize(x: Tensor, size: torch.Size) -> Tensor:
    """Return a map (B, C, H, W) interpolated to ``size``."""
    return x if x.shape[2:] == size else F.interpolate(x, list(size), mode="bilinear", align_corners=False)


def normalise(x: Tensor) -> Tensor:
    """Return n(x) of a map (B, C, H, W)."""
    count = x.numel() // x.shape[1]
    mean = x.mean((0, 2, 3), keepdim=True)
    centred = x - mean
    variance = centred.square().sum((0, 2, 3), keepdim=True) / max(count - 1, 1)
    limit = torch.maximum(CONSTANT**2 * variance.mean(), (ROUNDING * mean).square())
    return centred / (variance.masked_fill(variance <= limit, torch.inf).sqrt() + EPS)

"""MGD: the teacher's map generated from a masked map of the student."""

from typing import ClassVar, Literal

from torch import Tensor, nn

from methods.alignment import to_common_grid
from methods.base import Batch, Outputs, TapSpec, check_choice
from methods.tap_pairs import TapPairs, total


class MGD(TapPairs):
    """Masked generation: Yang et al. 2022, "Masked Generative Distillation", arXiv:2205.01529. It is as in the authors'
    code (github.com/yzd-v/MGD @2c9da0b, distillation/losses/mgd.py in det/mmdet and cls/mmcls).

        L = sum over taps of  1/B sum || G( M a(f_s) ) - f_t ||^2,   summed over channels and positions

    f_s (B, C_s, H, W) and f_t (B, C_t, H, W) are the two models' maps, averaged onto a common grid where sizes differ;
    the authors' are equal. a is a 1x1 convolution, or nothing if C_s = C_t; G a 3x3 convolution, a ReLU and a 3x3
    convolution. Each tap has its own, trained with the student. M is 0 for a random share ``mask_ratio``, drawn for
    each image, and 1 elsewhere: with ``mask: positions``, M (B, 1, H, W) hides positions; with ``channels``,
    M (B, C_t, 1, 1) hides whole channels. What it keeps is not rescaled.

    L is not divided by C H W: a weight that suits one image size is too large for larger images.

    The defaults are the authors' for one-stage detectors (RetinaNet: all five levels of the pyramid). For Faster R-CNN
    they have weight 5e-7, mask_ratio 0.45 and the taps ``p2, p3, p4, p5``. For ImageNet they have weight 7e-5,
    mask_ratio 0.15, mask ``channels`` and taps ``last``: take these for classifiers. They clip gradients at norm 35.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "generation": 2e-5}
    defined_for: ClassVar[tuple[str, ...]] = ("classification", "detection")

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        taps: str = "stages",
        mask_ratio: float = 0.65,
        mask: Literal["positions", "channels"] = "positions",
    ):
        super().__init__(student, teacher, taps)
        if not 0 <= mask_ratio <= 1:
            raise ValueError(f"mask_ratio must be between 0 and 1, not {mask_ratio}")
        check_choice("mask", mask, "positions", "channels")
        self.mask_ratio, self.mask = mask_ratio, mask
        self.align = nn.ModuleList(nn.Identity() if c_s == c_t else nn.Conv2d(c_s, c_t, 1) for c_s, c_t in self.widths)
        self.generate = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, c, 3, padding=1))
            for _, c in self.widths
        )

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        losses = []
        for align, generate, pair in zip(self.align, self.generate, self.maps(student, teacher), strict=True):
            s, t = to_common_grid(*pair)
            s = align(s)
            losses.append((generate(s * self.draw_mask(batch, s)) - t).square().sum() / len(t))
        return {"generation": total(losses)}

    def draw_mask(self, batch: Batch, x: Tensor) -> Tensor:
        """Return M for maps x (B, C, H, W)."""
        if self.mask == "channels":
            keep = batch.random.uniform(x.shape[1], 1, 1) >= self.mask_ratio
        else:
            keep = batch.random.uniform(1, *x.shape[2:]) <= 1 - self.mask_ratio
        return keep.to(x)

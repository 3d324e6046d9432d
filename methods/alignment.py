"""Alignment of two maps whose grids differ, such as 7x7 and 8x8, 14x14 and 7x7, or a class token's 1x1.

The larger map is averaged onto the smaller one's grid by adaptive average pooling, as in the code of CRD's comparison
(github.com/HobbitLong/RepDistiller). ReviewKD, whose paper enlarges maps, uses the nearest position. Equal grids stay
as they are.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def to_common_grid(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return both maps (B, C, H, W), averaged onto a grid of the smaller height and the smaller width."""
    size = min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])
    return shrink(a, size), shrink(b, size)


def shrink(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a map (B, C, H, W) averaged onto a grid of ``size``."""
    return x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size)


def nearest(x: Tensor, size: torch.Size) -> Tensor:
    """Return a map (B, C, H, W) on a grid of ``size``, each position with the value of the nearest one."""
    return x if x.shape[2:] == size else F.interpolate(x, size=list(size), mode="nearest")

"""Anchors: boxes that a detector's predictions are relative to."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator


def place_anchors(source: AnchorGenerator, image_size: Sequence[int], levels: dict[str, Tensor]) -> dict[str, Tensor]:
    """Level -> (H, W, A, 4) float32, where torchvision has them: its strides are an image's size by the map's, so that
    those of the last levels depend on the padding."""
    sizes = [x.shape[-2:] for x in levels.values()]
    strides = [[image_size[0] // height, image_size[1] // width] for height, width in sizes]
    source.set_cell_anchors(torch.float32, next(iter(levels.values())).device)
    grids = source.grid_anchors(sizes, strides)
    return {tap: grid.view(*size, -1, 4) for tap, grid, size in zip(levels, grids, sizes, strict=True)}


def in_one(anchors: dict[str, Tensor]) -> Tensor:
    """Return the anchors of all levels: (N, 4)."""
    return torch.cat([grid.view(-1, 4) for grid in anchors.values()])

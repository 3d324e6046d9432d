"""Losses of a detector: per image, so that a batch's is the mean of its images' whatever else is in it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def upcast(x: Tensor) -> Tensor:
    """Losses and boxes are computed in float32 (or better) whatever the model's precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def box_loss(predicted: Tensor, targets: Tensor, count: int) -> Tensor:
    """Smooth L1 (beta 1/9) of positives' offsets (P, 4), summed, for each of the ``count`` samples of an image."""
    return F.smooth_l1_loss(predicted, targets.to(predicted.dtype), beta=1 / 9, reduction="sum") / max(1, count)


def mean_over_images(losses: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of each loss over the images."""
    return {name: torch.stack([image[name] for image in losses]).mean() for name in losses[0]}

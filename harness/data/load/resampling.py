"""Resizing of images on a device, each with a crop of its own if need be.

Bilinear, as PIL resizes: where a crop is enlarged it is plain interpolation, and where it is reduced the filter is
widened (antialias). Pixels are rounded to integers, as files of images have them. timm's and torchvision's pipelines
resize CIFAR's images so before they normalise (repositories Hao840/OFAKD, train.py, and facebookresearch/deit,
datasets.py; they enlarge to 224 pixels by bilinear or bicubic interpolation).
"""

import torch
from torch import Tensor


def resample(pixels: Tensor, to_height: int, to_width: int, crops: Tensor | None = None) -> Tensor:
    """Return images (B, C, to_height, to_width) uint8 of crops of ``pixels`` (B, C, H, W) uint8.

    ``crops`` (B, 4): top, left, height and width of each; None: whole images.
    """
    height, width = pixels.shape[2:]
    if crops is None:
        crops = torch.tensor([[0, 0, height, width]], device=pixels.device)
    top, left, tall, wide = crops.float()[:, :, None, None].unbind(1)
    down, across = _weights(top, tall, height, to_height), _weights(left, wide, width, to_width)
    images = down[:, None] @ pixels.float() @ across[:, None].transpose(2, 3)
    return images.round_().clamp_(0, 255).to(torch.uint8)


def _weights(first: Tensor, length: Tensor, pixels: int, size: int) -> Tensor:
    """Return each pixel's weight in each of ``size`` results, (B, size, pixels), along one side.

    ``first`` and ``length`` (B, 1, 1) are the crop's part of the side.
    """
    scale = length / size
    centre = first + (torch.arange(size, device=first.device)[:, None] + 0.5) * scale
    pixel = torch.arange(pixels, device=first.device)
    weights = (1 - ((pixel + 0.5 - centre) / scale.clamp(min=1)).abs()).clamp_(min=0)
    weights = weights * ((pixel >= first) & (pixel < first + length))  # nothing outside of the crop
    return weights / weights.sum(2, keepdim=True)

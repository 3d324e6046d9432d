"""Random erasing of normalised images (arXiv:1708.04896), as timm has it (timm/data/random_erasing.py).

All that can be drawn is listed on the host: the sizes of rectangles, and the values of a normal distribution. A draw is
a place in these lists, so every device erases the same pixels with the same values. timm draws a size up to ten times
until it is smaller than the image; here it is drawn among those that are.
"""

import math
from functools import cache, lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness import rng

_STEPS = 256  # equally likely areas, and as many aspect ratios
_CHANCES = 1 << 24
_PARTS, _BITS = 4, 15  # values from one random number, and bits of each


class Sizes:
    """The heights and widths of rectangles that fit into an image, by the number of rectangles that share the area."""

    def __init__(self, settings: dict[str, Any], height: int, width: int, device: torch.device):
        lists = [_fitting_sizes(settings, height, width, number) for number in range(1, settings["count"] + 1)]
        self.lengths = torch.tensor([len(sizes) for sizes in lists], device=device)
        self.firsts = self.lengths.cumsum(0) - self.lengths
        self.sizes = torch.from_numpy(np.concatenate([*lists, np.zeros((1, 2), np.int64)])).to(device)


def _fitting_sizes(settings: dict[str, Any], height: int, width: int, number: int) -> np.ndarray:
    """Return the equally likely heights and widths, (N, 2) int64."""
    middles = [(i + 0.5) / _STEPS for i in range(_STEPS)]
    (least, most), logs = settings["area"], [math.log(aspect) for aspect in settings["aspect"]]
    areas = np.array([(least + (most - least) * m) * height * width / number for m in middles])[:, None]
    aspects = np.array([math.exp(logs[0] + (logs[1] - logs[0]) * m) for m in middles])
    sizes = np.stack([np.rint(np.sqrt(areas * aspects)), np.rint(np.sqrt(areas / aspects))], axis=-1).reshape(-1, 2)
    return sizes[(sizes < (height, width)).all(axis=1)].astype(np.int64)


class Erasing:
    """Random erasing for batches of images: a pure function of (seed, epoch, index, stream)."""

    def __init__(self, settings: dict[str, Any], *, dense: bool | None = None):
        """Take settings in their canonical form. ``dense``: as of ``PixelAugmentation``."""
        self._settings, self._dense = settings, dense
        self._sizes = lru_cache(maxsize=16)(lambda *size: Sizes(settings, *size))
        self._normal_values = cache(lambda device: torch.tensor(_normal_quantiles(), device=device))

    def __call__(self, images: Tensor, seed: int, epoch: int, indices: Tensor, stream: str) -> Tensor:
        """Return images (B, C, H, W) float32 with rectangles erased; the batch given stays as it is."""
        dense = images.device.type != "cpu" if self._dense is None else self._dense
        chance = rng.random_integers(seed, epoch, f"{stream} erasing", indices, _CHANCES)
        is_erased = chance < round(self._settings["probability"] * _CHANCES)
        if dense:
            erased = self._erase(images, seed, epoch, indices, stream)
            return torch.where(is_erased[:, None, None, None], erased, images)
        places = is_erased.nonzero()[:, 0]
        result = images.clone()
        if len(places):
            result[places] = self._erase(images[places], seed, epoch, indices[places], stream)
        return result

    def rectangles(self, height: int, width: int, seed: int, epoch: int, indices: Tensor, stream: str) -> Tensor:
        """Return top, left, height and width of each image's rectangles, (count, B, 4); unused ones have no pixels."""
        sizes = self._sizes(height, width, indices.device)
        count = len(sizes.lengths)
        number = rng.random_integers(seed, epoch, f"{stream} erasing count", indices, count)
        rectangles = []
        for k in range(count):
            bits = [rng.random_bits(seed, epoch, f"{stream} erasing {part} {k}", indices) for part in range(3)]
            length = sizes.lengths[number]
            is_used = (number >= k) & (length > 0)
            place = torch.where(is_used, sizes.firsts[number] + bits[0] % length.clamp(min=1), len(sizes.sizes) - 1)
            size = sizes.sizes[place]
            corner = [bits[side + 1] % (whole - size[:, side] + 1) for side, whole in enumerate((height, width))]
            rectangles.append(torch.stack([*corner, size[:, 0], size[:, 1]], dim=1))
        return torch.stack(rectangles)

    def _erase(self, images: Tensor, seed: int, epoch: int, indices: Tensor, stream: str) -> Tensor:
        batch, channels, height, width = images.shape
        y, x = torch.arange(height, device=images.device)[:, None], torch.arange(width, device=images.device)
        is_inside = torch.zeros((batch, height, width), dtype=torch.bool, device=images.device)
        for rectangle in self.rectangles(height, width, seed, epoch, indices, stream):
            top, left, h, w = (part[:, None, None] for part in rectangle.unbind(1))
            is_inside |= (y >= top) & (y < top + h) & (x >= left) & (x < left + w)
        if self._settings["mode"] == "constant":
            return images.masked_fill(is_inside[:, None], self._settings["value"])
        words = -(-height * width * channels // _PARTS)
        counters = indices[:, None] * words + torch.arange(words, device=images.device)
        bits = rng.random_bits(seed, epoch, f"{stream} erasing values", counters)
        places = torch.stack([(bits >> (_BITS * i)) & ((1 << _BITS) - 1) for i in range(_PARTS)], dim=2).view(batch, -1)
        values = self._normal_values(images.device)[places[:, : height * width * channels]]
        return torch.where(is_inside[:, None], values.view(batch, height, width, channels).permute(0, 3, 1, 2), images)


@cache
def _normal_quantiles() -> list[float]:
    """Return equally likely values of a standard normal distribution."""
    normal, count = NormalDist(), 1 << _BITS
    return [normal.inv_cdf((i + 0.5) / count) for i in range(count)]

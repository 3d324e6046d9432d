"""Operations on batches of pixels, (B, H, W, C) uint8, with one argument per image. They give the bits of PIL's.

Most operations replace each value by another: they are a table of 256 bytes per image, or per image and channel.
"""

import numpy as np
import torch
from torch import Tensor

KEEPS = torch.arange(256, dtype=torch.uint8)  # the table that changes nothing


def fixed_table(kind: str, argument: float) -> Tensor:
    """Return the table, (256,) uint8, of an operation that does not depend on what an image shows.

    ``argument`` is a factor (brightness), the bits that are kept (posterize), the least value that is inverted
    (solarize), or what values below 128 are raised by (solarize_add).
    """
    values = torch.arange(256)
    if kind == "brightness":
        return _blend_tables(torch.zeros(1), torch.tensor([argument], dtype=torch.float32))[0]
    if kind == "posterize":
        return (values & (256 - (1 << (8 - int(argument))))).to(torch.uint8)
    if kind == "invert" or kind == "solarize":
        return torch.where(values < argument, values, 255 - values).to(torch.uint8)
    if kind == "solarize_add":
        return torch.where(values < 128, (values + int(argument)).clamp(max=255), values).to(torch.uint8)
    return KEEPS


def look_up(pixels: Tensor, tables: Tensor) -> Tensor:
    """Return images whose values were replaced as their tables, (B, 256) or (B, C, 256) uint8, say."""
    if pixels.device.type == "cpu" and tables.ndim == 2:
        # One C loop over bytes. An index of torch would take 8 bytes per value.
        images = [x.tobytes().translate(t.tobytes()) for x, t in zip(pixels.numpy(), tables.numpy(), strict=True)]
        return torch.from_numpy(np.frombuffer(bytearray().join(images), np.uint8).reshape(pixels.shape))
    if tables.ndim == 2:
        tables = tables[:, None].expand(-1, pixels.shape[3], -1)
    return tables.reshape(-1).index_select(0, _positions(pixels)).view(pixels.shape)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean of the image's grey values, rounded to an integer."""
    grey, count = _grey(pixels), pixels.shape[1] * pixels.shape[2]
    count *= grey.shape[3]
    mean = (2 * grey.sum(dim=(1, 2, 3)) + count) // (2 * count)
    return look_up(pixels, _blend_tables(mean.float(), factor))


def color(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image in grey; a grey image stays as it is."""
    if pixels.shape[3] != 3:
        return pixels
    return _blend(_grey(pixels).float(), pixels, factor)


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image smoothed by (1 1 1, 1 5 1, 1 1 1) / 13; the pixels at the edge stay as they are."""
    if min(pixels.shape[1:3]) < 3:
        return pixels
    values = pixels.to(torch.int16)
    centre = values[:, 1:-1, 1:-1]
    total = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    total = total[:, :, :-2] + total[:, :, 1:-1] + total[:, :, 2:] + 4 * centre
    smooth = ((total.to(torch.int32) + 6) * 20165) >> 18  # (total + 6) // 13, exact up to 3,321
    sharp = pixels.clone()
    sharp[:, 1:-1, 1:-1] = _blend(smooth.float(), centre, factor)
    return sharp


def autocontrast(pixels: Tensor) -> Tensor:
    """Stretch each channel from its least and greatest values to 0 and 255."""
    batch, height, width, channels = pixels.shape
    rows = pixels.reshape(batch, height, width * channels)  # whole rows at once: three channels alone are slow
    low, high = (extreme.view(batch, width, channels) for extreme in (rows.amin(1), rows.amax(1)))
    low, high = low.amin(1)[..., None].double(), high.amax(1)[..., None].double()
    values = torch.arange(256, device=pixels.device, dtype=torch.float64)
    # A number over a tensor would be the number times the reciprocal, which rounds twice.
    scale = torch.full_like(high, 255.0) / (high - low).clamp(min=1)
    tables = (values * scale + -low * scale).clamp(0, 255).to(torch.uint8)
    return look_up(pixels, torch.where(high > low, tables, values.to(torch.uint8)))


def equalize(pixels: Tensor) -> Tensor:
    """Map each channel's values so that their histogram becomes flat."""
    batch, height, width, channels = pixels.shape
    positions = _positions(pixels)
    counts = torch.zeros(batch * channels * 256, dtype=torch.int32, device=pixels.device)
    if pixels.device.type == "cpu":
        counts += torch.bincount(positions, minlength=len(counts))
    else:  # integers: the sum does not depend on the order, which only torch.bincount is warned of
        counts.scatter_add_(0, positions.long(), torch.ones_like(positions, dtype=torch.int32))
    counts = counts.view(batch * channels, 256)
    below = counts.cumsum(1) - counts
    values = torch.arange(256, device=pixels.device)
    last = ((counts > 0) * values).amax(1, keepdim=True)
    step = (height * width - counts.gather(1, last)) // 255
    tables = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    tables = torch.where(step > 0, tables, values).to(torch.uint8)
    return tables.view(-1).index_select(0, positions).view(pixels.shape)


def _positions(pixels: Tensor) -> Tensor:
    """Return where each value stands in tables of all images and channels, (B * C * 256)."""
    batch, height, width, channels = pixels.shape
    first = torch.arange(batch * channels, dtype=torch.int32, device=pixels.device).view(batch, 1, channels) * 256
    rows = pixels.view(batch, height, width * channels).to(torch.int32)
    return rows.add_(first.repeat(1, 1, width)).view(-1)


def _grey(pixels: Tensor) -> Tensor:
    """Return PIL's grey values in int32, (B, H, W, 1); all channels where there are not three."""
    if pixels.shape[3] != 3:
        return pixels.to(torch.int32)
    red, green, blue = pixels.to(torch.int32).split(1, dim=3)
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def _blend_tables(start: Tensor, factor: Tensor) -> Tensor:
    """Return tables (B, 256) of the blend of all values with one value per image, (B,) float32."""
    values = torch.arange(256, dtype=torch.float32, device=start.device)
    return _blend(start[:, None], values, factor)


def _blend(start: Tensor, end: Tensor, factor: Tensor) -> Tensor:
    """Return start + factor * (end - start), truncated, as PIL's ``Image.blend``; the order decides the last bit."""
    factor = factor.view(-1, *[1] * (start.ndim - 1))
    return (end - start).mul_(factor).add_(start).clamp_(0, 255).to(torch.uint8)

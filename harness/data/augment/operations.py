"""Operations on batches of pixels, (B, H, W, C) uint8, with one argument per image. They give the bits of PIL's.

Most operations replace each value by another: they are a table of 256 bytes per image, or per image and channel.
"""

import numpy as np
import torch
from torch import Tensor


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
    return values.to(torch.uint8)


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
    planes = _planes(pixels)
    grey = _grey(planes) if len(planes) == 3 else torch.cat(planes, dim=1)
    count = grey[0].numel()
    mean = (2 * grey.to(torch.int32).sum(dim=(1, 2)) + count) // (2 * count)
    return look_up(pixels, _blend_tables(mean.float(), factor))


def color(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image in grey; an image that has not three channels stays as it is."""
    planes = _planes(pixels)
    if len(planes) != 3:
        return pixels
    grey, result = _grey(planes), torch.empty_like(pixels)
    for channel, plane in enumerate(planes):
        result[..., channel] = _blend(grey, plane, factor)
    return result


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image smoothed by (1 1 1, 1 5 1, 1 1 1) / 13; the pixels at the edge stay as they are."""
    batch, height, width, channels = pixels.shape
    if min(height, width) < 3:
        return pixels
    end = (width - 1) * channels
    rows = pixels.view(batch, height, width * channels)  # neighbours along a row are `channels` values apart
    values = rows.float()
    smooth = values[:, :-2] + values[:, 1:-1]
    smooth += values[:, 2:]
    smooth = smooth[..., : end - channels] + smooth[..., channels:end] + smooth[..., 2 * channels :]
    centre = values[:, 1:-1, channels:end]
    # Sums of integers are exact here, and no thirteenth of them plus a half is near to an integer.
    smooth.add_(centre, alpha=4).add_(6.5).mul_(1 / 13).floor_()
    sharp = rows.clone()
    sharp[:, 1:-1, channels:end] = _blend(smooth, centre, factor)
    return sharp.view(pixels.shape)


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
    quotient = (below + step // 2).double() / step.clamp(min=1)  # its floor is exact, and integers divide slowly
    tables = torch.where(step > 0, quotient.clamp_(max=255).to(torch.uint8), values.to(torch.uint8))
    return tables.view(-1).index_select(0, positions).view(pixels.shape)


def _positions(pixels: Tensor) -> Tensor:
    """Return where each value stands in tables of all images and channels, (B * C * 256)."""
    batch, height, width, channels = pixels.shape
    first = torch.arange(batch * channels, dtype=torch.int32, device=pixels.device).view(batch, 1, channels) * 256
    rows = pixels.view(batch, height, width * channels).to(torch.int32)
    return rows.add_(first.repeat(1, 1, width)).view(-1)


def _planes(pixels: Tensor) -> list[Tensor]:
    """Return each channel by itself, (B, H, W) float32: three channels side by side are slow to work on."""
    return [pixels[..., channel].float() for channel in range(pixels.shape[3])]


def _grey(planes: list[Tensor]) -> Tensor:
    """Return PIL's grey values, integers in float32. All sums are below 2^24, so that they are exact."""
    red, green, blue = planes
    return (red * 19595).add_(green * 38470).add_(blue * 7471).add_(32768).mul_(2.0**-16).floor_()


def _blend_tables(start: Tensor, factor: Tensor) -> Tensor:
    """Return tables (B, 256) of the blend of all values with one value per image, (B,) float32."""
    values = torch.arange(256, dtype=torch.float32, device=start.device)
    return _blend(start[:, None], values, factor)


def _blend(start: Tensor, end: Tensor, factor: Tensor) -> Tensor:
    """Return start + factor * (end - start), truncated, as PIL's ``Image.blend``; the order decides the last bit."""
    factor = factor.view(-1, *[1] * (start.ndim - 1))
    return (end - start).mul_(factor).add_(start).clamp_(0, 255).to(torch.uint8)

"""Geometric operations: a pixel of the result is read where an affine map sends it, as PIL's ``Image.transform`` does.

Positions are integers in units of 2^-16 pixel. Nearest interpolation is exact integer arithmetic. Bilinear and bicubic
interpolation are products and sums in float32, each rounded by itself, so that every device gives the same bits.
"""

import math

import torch
from torch import Tensor

KINDS = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
ONE = 1 << 16
Matrix = tuple[float, float, float, float, float, float]  # x' = ax + by + c and y' = dx + ey + f, of pixels' centres


def affine_map(kind: str, argument: float, height: int, width: int) -> Matrix:
    """Return the map of a geometric operation from positions in its result to positions in its input.

    Args:
        kind: one of ``KINDS``.
        argument: pixels of displacement per pixel (shears), pixels (translations), or degrees (rotation, about the
            centre, counterclockwise).
    """
    if kind == "rotate":
        cosine, sine = (round(f(-math.radians(argument)), 15) for f in (math.cos, math.sin))
        x, y = width / 2, height / 2
        return cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y
    part = {"shear_x": 1, "translate_x": 2, "shear_y": 3, "translate_y": 5}[kind]
    a, b, c, d, e, f = (argument if i == part else one for i, one in enumerate((1.0, 0.0, 0.0, 0.0, 1.0, 0.0)))
    return a, b, c, d, e, f


def in_units(matrix: Matrix, interpolation: str) -> tuple[int, ...]:
    """Return a map of pixels' positions (x, y), in units of 2^-16, from a map of their centres."""
    a, b, c, d, e, f = matrix
    # Nearest reads the pixel that the position is in. The others read around it, from the centre of a pixel.
    shift = 0.5 if interpolation != "nearest" else 0.0
    c, f = c + (a + b) / 2 - shift, f + (d + e) / 2 - shift
    if interpolation == "nearest" and not (b or d):
        c, f = math.floor(c), math.floor(f)  # a translation has no rounding to whole units either
    return tuple(math.floor(value * ONE + 0.5) for value in (a, b, c, d, e, f))


def resample(pixels: Tensor, maps: Tensor, fill: Tensor, interpolation: str) -> Tensor:
    """Return images (B, H, W, C) uint8 whose pixels were read where their maps (B, 6) int64 say.

    Pixels that are read outside of the image are ``fill`` (C,).
    """
    height, width = pixels.shape[1:3]
    if (
        interpolation == "nearest"
        and pixels.device.type == "cpu"
        and bool((maps[:, 3:5] == maps.new_tensor([0, ONE])).all())
    ):
        return _shift_rows(pixels, maps, fill)
    columns = torch.arange(width, device=pixels.device)
    rows = torch.arange(height, device=pixels.device)[:, None]
    part = maps.to(torch.int32).permute(1, 0)[..., None, None]
    columns, rows = columns.to(torch.int32), rows.to(torch.int32)
    x = part[0] * columns + (part[1] * rows + part[2])
    y = part[3] * columns + (part[4] * rows + part[5])
    if interpolation == "nearest":
        return _nearest(pixels, x >> 16, y >> 16, fill)
    return _interpolate(pixels, x, y, fill, 2 if interpolation == "bilinear" else 4)


def _nearest(pixels: Tensor, x: Tensor, y: Tensor, fill: Tensor) -> Tensor:
    batch, height, width, channels = pixels.shape
    inside = (x.clamp(0, width - 1) == x) & (y.clamp(0, height - 1) == y)
    # One more row of one pixel, the fill, is what positions outside read.
    source = torch.cat([pixels.view(-1, channels), fill[None]])
    first = torch.arange(batch, dtype=torch.int32, device=x.device)[:, None, None] * (height * width)
    position = torch.where(inside, y * width + x + first, batch * height * width)
    return source.index_select(0, position.view(-1)).view(pixels.shape)


def _shift_rows(pixels: Tensor, maps: Tensor, fill: Tensor) -> Tensor:
    """Read whole rows at once, where each row of the result is a part of one row: shears and translations along x."""
    batch, height, width, channels = pixels.shape
    rows = torch.arange(height)
    x = (maps[:, 1:2] * rows + maps[:, 2:3]) >> 16  # (B, H), where a row's first pixel is read
    y = rows + (maps[:, 5:6] >> 16)
    # Each row stands in a row of fill three times as wide. A last row is fill alone.
    wide = torch.empty((batch * height + 1, 3 * width, channels), dtype=torch.uint8)
    wide.view(-1, channels)[:] = fill
    wide[:-1, width : 2 * width] = pixels.view(batch * height, width, channels)
    first = torch.arange(batch)[:, None] * height
    row = torch.where((y >= 0) & (y < height), y + first, batch * height)
    windows = wide.as_strided((len(wide) * 3 * width - width + 1, width * channels), (channels, 1))
    return windows.index_select(0, (row * (3 * width) + (x + width).clamp(0, 2 * width)).view(-1)).view(pixels.shape)


def _interpolate(pixels: Tensor, x: Tensor, y: Tensor, fill: Tensor, taps: int) -> Tensor:
    """Mix ``taps`` x ``taps`` pixels; those beyond the edge are the edge's. Truncated, as PIL's."""
    batch, height, width, channels = pixels.shape
    half = ONE // 2
    is_inside = (x >= -half) & (x < width * ONE - half) & (y >= -half) & (y < height * ONE - half)
    source = pixels.reshape(-1, channels)
    first = torch.arange(batch, dtype=torch.int32, device=x.device)[:, None, None] * (height * width)
    across, down = (_tap_weights((p & (ONE - 1)).float() / ONE, taps) for p in (x, y))
    total: Tensor | None = None
    for i, weight in enumerate(down):
        row = ((y >> 16) + i + 1 - taps // 2).clamp(0, height - 1) * width + first
        line: Tensor | None = None
        for j, share in enumerate(across):
            column = ((x >> 16) + j + 1 - taps // 2).clamp(0, width - 1)
            value = source.index_select(0, (row + column).view(-1)).view(pixels.shape) * share[..., None]
            line = value if line is None else line + value
        assert line is not None
        total = line * weight[..., None] if total is None else total + line * weight[..., None]
    assert total is not None
    return torch.where(is_inside[..., None], total.clamp(0, 255).to(torch.uint8), fill)


def _tap_weights(t: Tensor, taps: int) -> tuple[Tensor, ...]:
    """Return each tap's weight, for positions ``t`` in [0, 1) behind the pixel; the cubic is PIL's, with a = -1."""
    if taps == 2:
        return 1 - t, t
    u = 1 - t
    return -t * u * u, 1 - 2 * t * t + t * t * t, 1 - 2 * u * u + u * u * u, -u * t * t

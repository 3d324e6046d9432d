"""Normalisation to unit length whose gradient stays finite where the textbook formula divides by zero."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def unit(x: Tensor, dim: int = 1, *, eps: float = 0.0, least: float | Tensor = 0.0) -> Tensor:
    """Return x / (|x| + eps) along ``dim``. Vectors not longer than ``least`` become 0, without gradient."""
    return Unit.apply(x, dim, eps, least) if x.requires_grad else normalise(x, dim, eps, least).direction  # type: ignore[no-any-return]


class Normalised(NamedTuple):
    """A result of ``normalise`` with what its derivative needs."""

    direction: Tensor
    scaled: Tensor  # x / peak
    peak: Tensor  # the largest absolute value, divided out, so that squares neither vanish nor overflow
    root: Tensor  # |scaled|
    length: Tensor  # |x| + eps
    short: Tensor  # whether |x| is not above `least`


def normalise(x: Tensor, dim: int, eps: float, least: float | Tensor) -> Normalised:
    """Return what ``unit`` does, and the steps on the way."""
    peak = x.abs().amax(dim, keepdim=True).clamp_(min=torch.finfo(x.dtype).tiny)
    scaled = x / peak
    root = scaled.square().sum(dim, keepdim=True).sqrt_()
    length = root * peak
    short = (length > least).logical_not_()  # not the opposite comparison: NaN is short too
    if eps:
        length += eps
    return Normalised((x / length).masked_fill_(short, 0.0), scaled, peak, root, length, short)


class Unit(torch.autograd.Function):
    """``unit`` with its derivative written out, which takes half the passes over x that autograd's would."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, eps: float, least: float | Tensor) -> Tensor:
        result = normalise(x, dim, eps, least)
        ctx.dim = dim
        ctx.save_for_backward(*result)
        return result.direction

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        direction, scaled, peak, root, length, short = ctx.saved_tensors
        along = (direction / length).mul_(gradient).sum(ctx.dim, keepdim=True)
        through_length = (scaled * along.mul_(peak).div_(root)).div_(peak)
        return torch.sub(gradient / length, through_length).masked_fill_(short, 0.0), None, None, None

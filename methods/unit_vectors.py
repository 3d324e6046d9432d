"""Normalisation to unit length whose gradient stays finite where the textbook formula divides by zero."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def unit(x: Tensor, dim: int = 1, *, eps: float = 0.0, least: float | Tensor = 0.0) -> Tensor:
    """Return x / (|x| + eps) along ``dim``. Vectors not longer than ``least`` become 0, without gradient."""
    result: Tensor = Unit.apply(x, dim, eps, least) if x.requires_grad else normalise(x, dim, eps, least).direction
    return result


class Normalised(NamedTuple):
    """A result of ``normalise`` with what its derivative needs."""

    direction: Tensor
    scaled: Tensor  # x / peak
    peak: Tensor  # the largest absolute value, divided out, so that squares neither vanish nor overflow
    root: Tensor  # |scaled|
    length: Tensor  # |x| + eps; infinite for what is not longer than `least`: dividing by it gives 0


def normalise(x: Tensor, dim: int, eps: float, least: float | Tensor) -> Normalised:
    """Return what ``unit`` does, and the steps on the way."""
    tiny = torch.finfo(x.dtype).tiny  # for vectors of zeros
    peak = x.abs().amax(dim, keepdim=True).clamp_(min=tiny)
    scaled = x / peak
    root = scaled.square().sum(dim, keepdim=True).sqrt_().clamp_(min=tiny)
    norm = root * peak
    length = torch.where(norm > least, norm + eps if eps else norm, torch.inf)
    return Normalised(x / length, scaled, peak, root, length)


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
        direction, scaled, peak, root, length = ctx.saved_tensors
        # in the layout of `gradient`, which decides the order of the sum
        along = (gradient * (direction / length)).sum(ctx.dim, keepdim=True)
        through_length = (scaled * along.mul_(peak).div_(root)).div_(peak)
        return torch.sub(gradient / length, through_length), None, None, None


def plain_unit(x: Tensor, dim: int = 1) -> Tensor:
    """Return x / |x| along ``dim``, for values whose squares neither vanish nor overflow; fewer passes than ``unit``.

    A vector of zeros stays 0, without gradient.
    """
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x / torch.where(norm > 0, norm, torch.inf)

"""Normalisation to unit length whose gradient stays finite where the textbook formula divides by zero."""

import torch
from torch import Tensor


def unit(x: Tensor, dim: int = 1, *, eps: float = 0.0, least: float | Tensor = 0.0) -> Tensor:
    """Return x / (|x| + eps) along ``dim``. Vectors not longer than ``least`` become 0, without gradient."""
    peak = x.detach().abs().amax(dim, keepdim=True)  # divided out, so that squares neither vanish nor overflow
    peak = torch.where(peak > 0, peak, 1.0)
    square = (x / peak).square().sum(dim, keepdim=True)
    long_enough = square.detach().sqrt() * peak > least
    norm = torch.where(long_enough, square, 1.0).sqrt() * peak
    return torch.where(long_enough, x / (norm + eps), 0.0)


def plain_unit(x: Tensor, dim: int = 1) -> Tensor:
    """Return x / |x| along ``dim``, for values whose squares neither vanish nor overflow; fewer passes than ``unit``.

    A vector of zeros stays 0, without gradient.
    """
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x / torch.where(norm > 0, norm, torch.inf)

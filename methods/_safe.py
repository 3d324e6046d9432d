"""Operations whose gradient stays finite where the textbook formula divides by zero."""

import torch
from torch import Tensor


def unit(x: Tensor, dim: int = 1, *, eps: float = 0.0, least: float | Tensor = 0.0) -> Tensor:
    """x / (|x| + eps) along `dim`. What is not longer than `least` has no direction: 0, without gradient."""
    peak = x.detach().abs().amax(dim, keepdim=True)  # taken out, so that squares neither vanish nor overflow
    peak = torch.where(peak > 0, peak, 1.0)
    square = (x / peak).square().sum(dim, keepdim=True)
    usable = square.detach().sqrt() * peak > least
    norm = torch.where(usable, square, 1.0).sqrt() * peak
    return torch.where(usable, x / (norm + eps), 0.0)

"""Sampling of the anchors and regions of an image that a detector learns from in a step."""

import torch
from torch import Tensor


def generator(seed: int, device: torch.device) -> torch.Generator:
    """Return the generator of one image's draws."""
    return torch.Generator(device).manual_seed(seed)


def sample(labels: Tensor, count: int, positive_fraction: float, draws: torch.Generator) -> Tensor:
    """Return ascending positions of at most ``count`` of an image's candidates, with at most this fraction of them
    positive.

    ``labels`` (N,) of one image: above 0 positive, 0 negative, below 0 left out. As torchvision's
    ``BalancedPositiveNegativeSampler``, but drawn from the image's own generator.
    """
    positive, negative = torch.where(labels > 0)[0], torch.where(labels == 0)[0]
    positives = min(len(positive), int(count * positive_fraction))
    chosen = _draw(positive, positives, draws), _draw(negative, min(len(negative), count - positives), draws)
    return torch.cat(chosen).sort().values


def _draw(candidates: Tensor, count: int, draws: torch.Generator) -> Tensor:
    order = torch.randperm(len(candidates), generator=draws, device=candidates.device)
    return candidates[order[:count]]

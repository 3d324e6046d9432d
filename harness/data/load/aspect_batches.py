"""Batches of images of like shape: wide ones together and tall ones together, so that little of a batch is padding."""

import torch
from torch import Tensor

from harness import rng


def aspect_batches(seed: int, epoch: int, wide: Tensor, batch_size: int) -> list[Tensor]:
    """Return the batches of an epoch as positions in the training set; each image is in one of them.

    The wide images, and the others, are put in random order and cut into batches; the remainders of both make at most
    two mixed ones. Then the batches are put in random order, with a smaller one last. There are as many as without
    grouping. ``wide`` (N,) bool.
    """
    order = rng.random_permutation(seed, epoch, len(wide))
    groups = [order[wide[order]], order[~wide[order]]]
    whole = [len(group) // batch_size * batch_size for group in groups]
    alike = [part for group, end in zip(groups, whole, strict=True) for part in group[:end].split(batch_size) if end]
    mixed = torch.cat([group[end:] for group, end in zip(groups, whole, strict=True)])
    batches = [*alike, *(part for part in mixed.split(batch_size) if len(part))]
    last = [batches.pop()] if len(batches[-1]) < batch_size else []
    drawn = rng.random_bits(seed, epoch, "batches", torch.arange(len(batches)))
    return [batches[i] for i in torch.argsort(drawn, stable=True).tolist()] + last

"""A model's outputs on their way to a method: in float32, and those of the whole batch."""

import torch
from torch import Tensor

from harness.training.ranks import Ranks
from methods.base import Outputs


def in_float32(outputs: Outputs) -> Outputs:
    """Losses are computed in float32 (or better) whatever the models' precision."""

    def up(x: Tensor) -> Tensor:
        return x.float() if x.dtype == torch.bfloat16 else x

    return Outputs(up(outputs.logits), up(outputs.embedding), {k: up(v) for k, v in outputs.features.items()})


def gathered(mine: Outputs, ranks: Ranks, count: int) -> Outputs:
    """The outputs for all ``count`` images of a batch, from those of each process's share."""
    features = {k: ranks.gather(v, count) for k, v in mine.features.items()}
    if mine.logits.ndim == 1:  # maps alone
        return Outputs(mine.logits, mine.embedding, features)
    return Outputs(ranks.gather(mine.logits, count), ranks.gather(mine.embedding, count), features)

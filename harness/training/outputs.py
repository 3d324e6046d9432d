"""Model outputs prepared for a method: in float32, and for the whole batch."""

from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness.training.distributed.ranks import WHOLE_BATCH, BatchPart, Ranks
from methods.base import Outputs


def to_float32(outputs: Outputs) -> Outputs:
    """Return outputs with bfloat16 tensors converted to float32, in which losses are computed."""

    def up(x: Tensor) -> Tensor:
        return x.float() if x.dtype == torch.bfloat16 else x

    features = {k: up(v) for k, v in outputs.features.items()}
    teachers = tuple(map(to_float32, outputs.teachers))
    logits, embedding = up(outputs.logits), up(outputs.embedding)
    return replace(outputs, logits=logits, embedding=embedding, features=features, teachers=teachers)


def gather_outputs(mine: Outputs, ranks: Ranks, count: int, part: BatchPart = WHOLE_BATCH) -> Outputs:
    """Return the outputs for all images of a part of a batch of ``count``, from those of each rank's images."""
    if ranks.world_size == 1:
        return mine
    features = {k: ranks.all_gather(v, count, part) for k, v in mine.features.items()}
    if mine.logits.ndim == 1:  # only maps
        return Outputs(mine.logits, mine.embedding, features)
    teachers = tuple(gather_outputs(teacher, ranks, count, part) for teacher in mine.teachers)
    embedding = mine.embedding if teachers else ranks.all_gather(mine.embedding, count, part)
    return Outputs(ranks.all_gather(mine.logits, count, part), embedding, features, teachers=teachers)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield all tensors in a value made of sequences, mappings and dataclasses."""
    if isinstance(value, Tensor):
        yield value
        return
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)

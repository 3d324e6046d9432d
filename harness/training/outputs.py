"""Model outputs prepared for a method: in float32, and for the whole batch; and those kept of an evaluation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.training.distributed.ranks import WHOLE_BATCH, BatchPart, Ranks
from methods.base import Outputs


def to_float32(outputs: Outputs) -> Outputs:
    """Return outputs with bfloat16 tensors converted to float32, in which losses are computed."""
    return map_outputs(outputs, lambda _, x: x.float() if x.dtype == torch.bfloat16 else x)


def gather_outputs(mine: Outputs, ranks: Ranks, count: int, part: BatchPart = WHOLE_BATCH) -> Outputs:
    """Return the outputs for all images of a part of a batch of ``count``, from those of each rank's images."""
    if ranks.world_size == 1:
        return mine
    # Of maps alone, logits and embedding are empty and have one dimension; so is the embedding of several teachers.
    return map_outputs(mine, lambda _, x: x if x.ndim == 1 else ranks.all_gather(x, count, part))


def map_outputs(outputs: Outputs, function: Callable[[str, Tensor], Tensor], place: str = "") -> Outputs:
    """Return outputs with ``function(name, tensor)`` in place of each tensor; names tell the tensors apart."""
    teachers = enumerate(outputs.teachers)
    return replace(
        outputs,
        logits=function(f"{place}logits", outputs.logits),
        embedding=function(f"{place}embedding", outputs.embedding),
        features={tap: function(f"{place}tap {tap}", x) for tap, x in outputs.features.items()},
        views={name: map_outputs(view, function, f"{place}view {name} ") for name, view in outputs.views.items()},
        teachers=tuple(map_outputs(teacher, function, f"{place}teacher {i} ") for i, teacher in teachers),
    )


@contextmanager
def kept_logits(model: nn.Module) -> Iterator[list[Tensor]]:
    """Keep the logits that a classifier computes meanwhile: (B, classes) float32 on the CPU for each batch."""
    kept: list[Tensor] = []
    hook = model.register_forward_hook(lambda _, images, outputs: kept.append(outputs.logits.float().cpu()))
    try:
        yield kept
    finally:
        hook.remove()


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

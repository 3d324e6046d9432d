"""Batches taken in parts, one after another, for one optimiser step."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor

from harness.training.distributed.ranks import Part, Ranks
from methods.base import Batch, Outputs

Rows = TypeVar("Rows", Tensor, list[Any])


def micro_batches(
    batch: Batch, teacher: Outputs, accumulate: int, ranks: Ranks
) -> Iterator[tuple[Part, Batch, Outputs]]:
    """The parts of a batch with what the teacher says of each.

    A batch with fewer images than ``accumulate`` has a part for each of them.
    """
    count = len(batch.indices)
    parts = min(accumulate, count)
    for part in (Part(index, parts) for index in range(parts)):
        micro = copy.copy(batch)
        here = ranks.rows(count, part).start - ranks.rows(count).start
        micro.images = _rows(batch.images, slice(here, None, part.of))
        micro.targets, micro.indices = _rows(batch.targets, part.rows), _rows(batch.indices, part.rows)
        micro.random = batch.random.part(part.rows)
        maps = {name: _rows(x, part.rows) for name, x in teacher.features.items()}
        logits, embedding = _rows(teacher.logits, part.rows), _rows(teacher.embedding, part.rows)
        yield part, micro, replace(teacher, logits=logits, embedding=embedding, features=maps)


def _rows(x: Rows, rows: slice) -> Rows:
    """Without gaps between them in memory, which convolutions would fill in again and again."""
    return x[rows].clone() if isinstance(x, Tensor) and rows.step != 1 else x[rows]

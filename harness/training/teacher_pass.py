"""A teacher's pass over training images before training, for methods that measure something on its maps."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from harness.training.distributed.ranks import ONE_RANK, Ranks
from harness.training.teacher import Teacher
from methods.base import TeacherPass

LINE_SECONDS = 60


def measure(
    request: TeacherPass,
    teacher: Teacher,
    targets: Tensor,
    read: Callable[[Tensor], Iterable[Tensor]],
    precision: str,
    ranks: Ranks = ONE_RANK,
) -> Tensor:
    """Return what a method measures on the teacher's maps, bit for bit the same on all ranks.

    ``targets`` (N,) are the training set's; ``read`` yields the images (B, C, H, W) at positions of it. Each rank runs
    the teacher on its share of them.
    """
    positions = request.images(targets)
    mine = positions[ranks.rows(len(positions))]
    alone, maps, done, last = replace(teacher, ranks=ONE_RANK), [], 0, time.monotonic()
    if ranks.rank == 0:
        print(f"teacher {teacher.name}: a pass over {len(positions):,} training images", flush=True)
    for images in read(mine):
        maps.append(alone(images, (request.tap,), precision, len(images)).features[request.tap])
        done += len(images)
        if time.monotonic() - last > LINE_SECONDS:
            last = time.monotonic()
            print(f"teacher {teacher.name}: {done:,} of {len(mine):,} training images", flush=True)
    measured = request.measure(ranks.all_gather(torch.cat(maps), len(positions)), targets[positions])
    if ranks.rank:
        measured.zero_()
    ranks.all_reduce_sum([measured])
    return measured

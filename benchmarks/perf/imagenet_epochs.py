"""Epochs of a file of images in a process of its own: ``FILE THREADS``.

First it reads an epoch, or the beginning of a long one, and prints what the process takes. For every line on stdin it
reads one more and prints the seconds per image; for the line ``cold``, after the page cache has forgotten the file.
"""

import json
import os
import sys
import time
from collections.abc import Generator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.perf.cifar import DEVICE, INFO
from benchmarks.perf.imagenet_sample import BATCH, SIZE
from benchmarks.perf.pack_process import memory
from harness.data import beton
from harness.data.load.beton import BetonLoader
from harness.data.load.tensors import Normalise
from harness.training import host_memory

STEPS = 161  # of an epoch, at most


def main() -> None:
    path, threads = Path(sys.argv[1]), int(sys.argv[2])
    host_memory.retain_freed_memory()  # as every job does
    torch.set_num_threads(1)
    before = memory("RssAnon")
    loader = BetonLoader(
        path, np.arange(len(beton.read_beton(path))), Normalise(INFO, DEVICE), batch_size=BATCH, image_size=SIZE,
        crop_area=(0.08, 1.0), flip=True, seed=0, rows=lambda count: slice(0, count), workers=threads, device=DEVICE,
        backend="ffcv",
    )  # fmt: skip
    for epoch in range(2):  # the first one compiles
        first_batch, _ = timed(loader.epoch(epoch))
    print(json.dumps({"memory_MB": memory("RssAnon") - before, "first_batch_s": round(first_batch, 3)}), flush=True)
    for epoch, line in enumerate(sys.stdin, 2):
        if line.strip() == "cold":
            forget(path)
        print(timed(loader.epoch(epoch))[1], flush=True)


def timed(batches: Generator[Any, None, None]) -> tuple[float, float]:
    """Return the seconds to the first batch, and the seconds per image of those after it."""
    began = time.perf_counter()
    next(batches)
    begun = time.perf_counter()
    count = sum(len(images) for images, *_ in islice(batches, STEPS - 1))
    seconds = (time.perf_counter() - begun) / count
    batches.close()
    return begun - began, seconds


def forget(path: Path) -> None:
    """Let the page cache drop a file, except for the pages that a process has mapped."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()

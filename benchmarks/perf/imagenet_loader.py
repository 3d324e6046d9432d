"""Bench of loading ImageNet images, in images a second, on two cores.

Our loader of prepared images (FFCV, seeded crops) against torchvision's usual one, ImageFolder and a DataLoader on
files of natural size. Both crop at random, flip and normalise.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import ConcatDataset, DataLoader
from torchvision import datasets, transforms

from benchmarks.perf.cifar import BUSY, CLOCK, DEVICE, INFO, clock
from benchmarks.perf.imagenet_sample import BATCH, SIZE, SOURCE, TIMES, missing, write_beton
from benchmarks.perf.measurement import emit, in_turn, ratio_of_pairs, say
from harness.data import beton
from harness.data.load.beton import BetonLoader
from harness.data.load.tensors import Normalise
from harness.training import host_memory

PAIRS = 7


def main(side: int = 400, target: float = 6.0, bench: str = "imagenet_loader") -> None:
    if lacks := missing():
        return say(f"{bench}: skipped, {lacks}")
    host_memory.retain_freed_memory()  # as every job does
    torch.set_num_threads(1)
    workers = 1 if BUSY else 2
    usual = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(INFO.mean, INFO.std),
        ]
    )
    files = ConcatDataset([datasets.ImageFolder(SOURCE, usual)] * TIMES)
    torchvision = DataLoader(
        files, BATCH, shuffle=True, num_workers=0 if BUSY else workers, persistent_workers=not BUSY
    )

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.beton"
        write_beton(path, side)
        ours = BetonLoader(
            path, np.arange(len(beton.read_beton(path))), Normalise(INFO, DEVICE), batch_size=BATCH, image_size=SIZE,
            crop_area=(0.08, 1.0), flip=True, seed=0, rows=lambda count: slice(0, count), workers=workers,
            device=DEVICE, backend="ffcv",
        )  # fmt: skip
        say(f"  {len(files)} images, stored at {side} px: {path.stat().st_size / 1e6:.0f} MB")
        epochs = iter(range(1_000_000))

        def timed(loader: str) -> float:
            """Return seconds per image over a whole epoch."""
            began = clock()
            batches = ours.epoch(next(epochs)) if loader == "ours" else torchvision
            count = sum(len(batch[0]) for batch in batches)
            assert count == len(files)
            return (clock() - began) / count

        timed("ours"), timed("torchvision")  # compile; start the workers
        seconds = in_turn({name: lambda name=name: timed(name) for name in ("ours", "torchvision")}, PAIRS)
    ratio, spread = ratio_of_pairs(seconds["torchvision"], seconds["ours"])
    detail = {
        "images_per_s": {name: round(1 / min(s)) for name, s in seconds.items()},
        "max_side": side,
        "workers": workers,
        "clock": CLOCK,
        **spread,
    }
    emit(bench, ratio, target, detail)


if __name__ == "__main__":
    main()

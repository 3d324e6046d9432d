"""Bench of loading detection images, in images a second, at detectron2's sizes.

Our loader of prepared images (two threads) against torchvision's usual one: CocoDetection with its v2 transforms and a
DataLoader (two processes), which pads each batch in the same way. Both decode, resize to a random shorter side, flip
and normalise the 126 images of coco128 that have objects.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision import datasets
from torchvision.transforms import v2

from benchmarks.perf.cifar import BUSY, CLOCK, DEVICE, clock
from benchmarks.perf.measurement import emit, in_turn, ratio_of_pairs, say
from harness.data import beton
from harness.data.annotations import Annotations
from harness.data.load.coco import MULTIPLE, CocoLoader
from harness.data.load.tensors import Normalise
from harness.data.manifest import Settings
from harness.data.prepare import coco
from harness.data.prepare.part import Request
from harness.spec.datasets import prepared_dataset
from harness.training import host_memory

BENCH, TARGET = "coco_loader", 2.3
SOURCE = Path(os.environ.get("KD_DATA", "")) / "coco128"
SIDES, MAX_SIDE, BATCH, PAIRS = tuple(range(640, 801, 32)), 1333, 8, 7
INFO = prepared_dataset("coco", "", 80, 126, 128, 0)


def main() -> None:
    if not SOURCE.is_dir():
        return say(f"{BENCH}: skipped, no coco128 in the folder that KD_DATA names")
    host_memory.retain_freed_memory()  # as every job does
    torch.set_num_threads(1)
    workers = 1 if BUSY else 2
    with tempfile.TemporaryDirectory() as folder_name:
        out, settings = Path(folder_name) / "coco", Settings(max_side=None, quality=90)
        manifest, _ = coco.prepare_coco(Request("coco", SOURCE, out, settings, 1, False, lambda *_: None))
        path = out / manifest.test.file
        annotations, file = Annotations.load(path.with_suffix(".safetensors"), 80), beton.read_beton(path)
        trained = np.flatnonzero(annotations.training_objects(file.heights, file.widths).counts)
        ours = CocoLoader(
            path, annotations, trained, Normalise(INFO, DEVICE), batch_size=BATCH, sides=SIDES, max_side=MAX_SIDE,
            flip=True, seed=0, rows=lambda count: slice(0, count), workers=workers, device=DEVICE,
        )  # fmt: skip
        torchvision = usual(trained.tolist(), workers)
        epochs = iter(range(1_000_000))

        def timed(loader: str) -> float:
            """Return seconds per image over a whole epoch."""
            began = clock()
            batches = ours.epoch(next(epochs)) if loader == "ours" else torchvision
            count = sum(len(batch[0]) for batch in batches)
            assert count == len(trained)
            return (clock() - began) / count

        timed("ours"), timed("torchvision")  # start the workers
        seconds = in_turn({name: lambda name=name: timed(name) for name in ("ours", "torchvision")}, PAIRS)
    ratio, spread = ratio_of_pairs(seconds["torchvision"], seconds["ours"])
    detail = {
        "images_per_s": {name: round(1 / min(s), 1) for name, s in seconds.items()},
        "sides": SIDES,
        "workers": workers,
        "clock": CLOCK,
        **spread,
    }
    emit(BENCH, ratio, TARGET, detail)


def usual(positions: list[int], workers: int) -> DataLoader:
    shown = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomShortestSize(SIDES, MAX_SIDE),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(INFO.mean, INFO.std),
        ]
    )
    name = "train2017"
    files = datasets.CocoDetection(
        SOURCE / "images" / name, str(SOURCE / f"annotations/instances_{name}.json"), transforms=shown
    )
    files = Subset(datasets.wrap_dataset_for_transforms_v2(files, target_keys=("boxes", "labels")), positions)
    return DataLoader(
        files, BATCH, shuffle=True, collate_fn=padded, num_workers=0 if BUSY else workers, persistent_workers=not BUSY
    )


def padded(samples: list[tuple[Tensor, dict[str, Tensor]]]) -> tuple[Tensor, list[dict[str, Tensor]]]:
    height, width = (-(-max(image.shape[d] for image, _ in samples) // MULTIPLE) * MULTIPLE for d in (1, 2))
    images = torch.zeros((len(samples), 3, height, width))
    for row, (image, _) in zip(images, samples, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return images, [target for _, target in samples]


if __name__ == "__main__":
    main()

"""Bench of random crop, flip and normalisation in images a second: the tensor loader against torchvision's PIL images.

Both run in this process on one thread with batches of 64. Our side also draws an epoch's order and random numbers.
"""

import time

import torch
from torch.utils.data import DataLoader

from benchmarks.perf.cifar import BATCH, DEVICE, INFO, images, targets
from benchmarks.perf.measurement import emit, in_turn, ratio_of_pairs
from benchmarks.perf.torchvision_cifar import Cifar
from harness.data.load.tensors import Normalise, TensorLoader

PAIRS, PIL_BATCHES = 7, 40


def main() -> None:
    torch.set_num_threads(1)
    pixels, labels = images(), targets()
    resident = TensorLoader(
        pixels, labels, Normalise(INFO, DEVICE), batch_size=BATCH, crop_padding=4, flip=True, seed=0
    )
    pil = iter(DataLoader(Cifar(), BATCH, shuffle=True))

    def ours() -> float:
        """Return seconds per image over a whole epoch, with its order."""
        began = time.perf_counter()
        count = sum(len(y) for _, y, _ in resident.epoch(0))
        return (time.perf_counter() - began) / count

    def theirs() -> float:
        began = time.perf_counter()
        for _ in range(PIL_BATCHES):
            next(pil)
        return (time.perf_counter() - began) / (PIL_BATCHES * BATCH)

    ours(), theirs()  # warm up
    seconds = in_turn({"ours": ours, "pil": theirs}, PAIRS)
    ratio, spread = ratio_of_pairs(seconds["pil"], seconds["ours"])
    detail = {"images_per_s": {name: round(1 / min(s)) for name, s in seconds.items()}, "threads": 1, **spread}
    emit("augment", ratio, 20.0, detail)


if __name__ == "__main__":
    main()

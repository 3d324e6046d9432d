"""Random crop, flip and normalisation: the tensor-resident loader against torchvision's PIL pipeline, images a second.

Each in this one process on one thread, batches of 64; an epoch's order and random numbers are ours to draw.
"""

import time

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms  # type: ignore[import-untyped]

from benchmarks.perf.cifar import BATCH, DEVICE, INFO, images, targets
from benchmarks.perf.common import emit, in_turn, ratio_of_pairs
from harness.data.resident import Normalise, TrainLoader

PAIRS, PIL_BATCHES = 7, 40


class Cifar(Dataset):
    def __init__(self, pixels: torch.Tensor, labels: torch.Tensor):
        self.data, self.targets = pixels.permute(0, 2, 3, 1).contiguous().numpy(), labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(INFO.mean, INFO.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def main() -> None:
    torch.set_num_threads(1)
    pixels, labels = images(), targets()
    resident = TrainLoader(pixels, labels, Normalise(INFO, DEVICE), batch_size=BATCH, crop_padding=4, flip=True, seed=0)
    pil = iter(DataLoader(Cifar(pixels, labels), BATCH, shuffle=True))

    def ours() -> float:
        """Seconds per image over a whole epoch, its order included."""
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

"""CIFAR-100 as one first writes it: PIL images through torchvision's transforms, one by one."""

import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import transforms  # type: ignore[import-untyped]

from benchmarks.perf.cifar import INFO, images, targets


class Cifar(Dataset):
    """The training set as pairs (image (3, 32, 32) float32, label), cropped, flipped and normalised."""

    def __init__(self, pixels: torch.Tensor | None = None, labels: torch.Tensor | None = None) -> None:
        """``pixels`` (N, 3, 32, 32) uint8 and ``labels`` (N,); by default random ones of CIFAR-100's number."""
        pixels, labels = images() if pixels is None else pixels, targets() if labels is None else labels
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

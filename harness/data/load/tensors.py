"""Tensor-resident loading: the whole dataset on the device as uint8, a batch augmented there in one go."""

import copy
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from harness import rng
from harness.data.load import arrays
from harness.data.load.loader import Rows
from harness.spec.schema import Recipe
from harness.spec.science import DatasetChoice
from harness.spec.tasks import DatasetInfo

EVAL_BATCH = {"cpu": 256, "cuda": 1024}  # a GPU needs more images per batch to be busy

_CACHED = 1 << 18  # values, of 4 bytes


class Normalise:
    """The normalisation of pixels: uint8 to float32 (pixel/255 - mean) / std, channels last in memory."""

    def __init__(self, info: DatasetInfo, device: torch.device):
        mean, std = torch.tensor(info.mean, device=device), torch.tensor(info.std, device=device)
        self.scale, self.shift = 1 / (255 * std), -mean / std

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return float32 images for uint8 pixels, both (B, C, H, W)."""
        images = torch.empty_like(pixels, dtype=torch.float32, memory_format=torch.channels_last)
        batch, channels, height, width = images.shape
        # Whole rows, as broadcasting only 3 channels is slow. On a CPU, as many rows at once as its cache holds.
        rows = images.permute(0, 2, 3, 1).view(batch * height, width * channels)
        source = pixels.permute(0, 2, 3, 1).reshape(rows.shape)
        scale, shift = self.scale.repeat(width), self.shift.repeat(width)
        at_once = max(1, _CACHED // (channels * width)) if pixels.device.type == "cpu" else batch * height
        for part, values in zip(rows.split(at_once), source.split(at_once), strict=True):
            part.copy_(values).mul_(scale).add_(shift)
        return images


class TensorLoader:
    """Batches of a training set. Order and augmentation are pure functions of (seed, epoch, index)."""

    def __init__(
        self,
        images: Tensor,  # (N, C, H, W) uint8
        targets: Tensor,  # (N,) int64
        normalise: Normalise,
        *,
        batch_size: int,
        crop_padding: int,
        flip: bool,
        seed: int,
        rows: Callable[[int], slice] = slice,
    ):
        n, c, h, w = images.shape
        p = crop_padding
        padded = torch.zeros((n, h + 2 * p, w + 2 * p, c), dtype=torch.uint8, device=images.device)
        padded[:, p : p + h, p : p + w] = images.permute(0, 2, 3, 1)
        # windows[k], a view, is the H x W window that begins at pixel k of all images in a row: H runs of W*C bytes.
        # One index per image lets torch copy whole runs; an index (image, dy, dx) would copy byte by byte.
        self._pixels_per_image, self._pixels_per_row = (h + 2 * p) * (w + 2 * p), w + 2 * p
        last = (n - 1) * self._pixels_per_image + 2 * p * self._pixels_per_row + 2 * p
        self._windows = padded.as_strided((last + 1, h, w * c), (c, self._pixels_per_row * c, 1))
        self._shape = (h, w, c)
        self._targets, self._normalise, self._flip, self._rows = targets, normalise, flip, rows
        self.batch_size, self._crops, self.seed, self.size = batch_size, 2 * p + 1, seed, n

    def with_seed(self, seed: int) -> "TensorLoader":
        """Return the same training set in another seed's order; the images are shared."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def __len__(self) -> int:
        """Return the steps per epoch; the last batch may be smaller."""
        return -(-self.size // self.batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[tuple[Tensor, Tensor, Tensor], None, None]:
        """Yield images (B', C, H, W) float32, targets (B,) and indices (B,) of each step from ``first_step`` on.

        Images are this process's share of the batch; targets and indices cover the whole batch.
        """
        device = self._targets.device
        order = rng.random_permutation(self.seed, epoch, self.size, device)
        every = torch.arange(self.size, device=device)
        place = rng.random_integers(self.seed, epoch, "crop", every, self._crops**2)
        down, right = place // self._crops, place % self._crops
        first_pixel = every * self._pixels_per_image + down * self._pixels_per_row + right
        flipped = rng.random_integers(self.seed, epoch, "flip", every, 2).bool() if self._flip else None
        for indices in order.split(self.batch_size)[first_step:]:
            mine = indices[self._rows(len(indices))]
            pixels = self._windows.index_select(0, first_pixel[mine]).view(-1, *self._shape)
            if flipped is not None:
                pixels = _choose(flipped[mine], pixels.flip(2), pixels)
            yield self._normalise(pixels.permute(0, 3, 1, 2)), self._targets[indices], indices


def _choose(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Choose images of ``yes`` or ``no``, (B, ...) contiguous uint8; copy eight bytes at a time if sizes allow it."""
    word = torch.int64 if yes[0].numel() % 8 == 0 else torch.uint8
    chosen = torch.where(condition[:, None], yes.flatten(1).view(word), no.flatten(1).view(word))
    return chosen.view(torch.uint8).view_as(no)


@dataclass
class TensorEvalSet:
    """The evaluation images, on the device."""

    name: str  # "test", or "validation": training images that are held out
    images: Tensor  # (N, C, H, W) uint8
    targets: Tensor  # (N,) int64
    normalise: Normalise

    def batches(self, mine: slice) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (B, C, H, W) float32 and targets (B,) in file order, each image of ``mine`` once."""
        images, targets = self.images[mine], self.targets[mine]
        size = EVAL_BATCH[images.device.type]
        for start in range(0, len(images), size):
            part = slice(start, start + size)
            yield self.normalise(images[part]), targets[part]


class TensorSource:
    """A dataset of small images that is held on the device as a whole."""

    decoder = ""

    def __init__(self, dataset: DatasetChoice, recipe: Recipe, folder: Path | None, device: torch.device, workers: int):
        info = dataset.info
        self._all = arrays.read_dataset(info, folder)
        self._chosen = self._all.chosen(dataset)
        self._held_out = dataset.validation is not None
        self._normalise, self._device = Normalise(info, device), device
        self.train_targets = torch.from_numpy(self._chosen.train_targets).to(device)
        self._loader: TensorLoader | None = None

    def training(self, recipe: Recipe, seed: int, rows: Rows) -> TensorLoader:
        """Return the training set, in batches. Of later calls only the seed counts: a job's packs share views."""
        if self._loader is None:
            images = torch.from_numpy(self._chosen.train_images).to(self._device)
            self._loader = TensorLoader(
                images,
                self.train_targets,
                self._normalise,
                batch_size=recipe.batch_size,
                crop_padding=recipe.crop_padding,
                flip=recipe.flip,
                seed=seed,
                rows=rows,
            )
            # The loader has a padded copy, and nothing else reads them: of CIFAR-100, 150 MB.
            for part in (self._all, self._chosen):
                part.train_images = part.train_images[:0].copy()
        return self._loader.with_seed(seed)

    def evaluation(self, whole: bool = False) -> TensorEvalSet:
        part = self._all if whole else self._chosen
        images, targets = torch.from_numpy(part.test_images), torch.from_numpy(part.test_targets)
        name = "validation" if self._held_out and not whole else "test"
        return TensorEvalSet(name, images.to(self._device), targets.to(self._device), self._normalise)

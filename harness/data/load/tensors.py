"""Tensor-resident loading: the whole dataset on the device as uint8, a batch augmented there in one go."""

import copy
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness import rng
from harness.data.load import arrays
from harness.data.load.batches import (
    Copies,
    EpochOrder,
    ImageSize,
    joined,
    largest_size,
    loaded_batch,
    size_in_epoch,
    whole_rows,
)
from harness.data.load.crops import training_views
from harness.data.load.loader import LoadedBatch, Rows, Waiting
from harness.data.load.mixing import Mixing
from harness.data.load.resampling import resample
from harness.data.load.view import View, copy_stream, further_views, in_stream
from harness.spec.repeated_augmentation import images_per_pass
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
        # Whole rows, as broadcasting only 3 channels is slow.
        rows = images.permute(0, 2, 3, 1).view(batch * height, width * channels)
        source = pixels.permute(0, 2, 3, 1).reshape(rows.shape)
        scale, shift = self.scale.repeat(width), self.shift.repeat(width)
        if pixels.device.type != "cpu":  # one pass over memory; its sums are rounded once, those of a CPU twice
            torch.addcmul(shift, source, scale, out=rows)
            return images
        at_once = max(1, _CACHED // (channels * width))  # rows that the cache holds
        for part, values in zip(rows.split(at_once), source.split(at_once), strict=True):
            part.copy_(values).mul_(scale).add_(shift)
        return images


@dataclass
class _Places:
    """Where an epoch's images are cropped, one value for each image of the training set."""

    first_pixel: Tensor  # (N,) int64: of the window
    flipped: Tensor | None  # (N,) bool
    crops: Tensor | None  # (N, 4): top, left, height and width in the flipped image


class TensorLoader:
    """Batches of a training set. Order and augmentation are pure functions of (seed, epoch, index)."""

    def __init__(
        self,
        images: Tensor,  # (N, C, H, W) uint8
        targets: Tensor,  # (N,) int64
        normalise: Normalise,
        *,
        batch_size: int,
        crop_padding: int = 0,
        flip: bool = False,
        seed: int,
        rows: Callable[[int], slice] = slice,
        view: View | None = None,  # in place of crop_padding and flip
        views: Mapping[str, View] | None = None,  # further ones
        image_size: ImageSize = None,
        repeats: int = 1,
        mixing: Mixing | None = None,
    ):
        n, c, h, w = images.shape
        self._view = view or View(crop_padding, flip=flip)
        self._views = views or {}
        p = self._padding = max(v.crop_padding for v in (self._view, *self._views.values()))
        padded = torch.zeros((n, h + 2 * p, w + 2 * p, c), dtype=torch.uint8, device=images.device)
        padded[:, p : p + h, p : p + w] = images.permute(0, 2, 3, 1)
        # windows[k], a view, is the H x W window that begins at pixel k of all images in a row: H runs of W*C bytes.
        # One index per image lets torch copy whole runs; an index (image, dy, dx) would copy byte by byte.
        self._pixels_per_image, self._pixels_per_row = (h + 2 * p) * (w + 2 * p), w + 2 * p
        last = (n - 1) * self._pixels_per_image + 2 * p * self._pixels_per_row + 2 * p
        self._windows = padded.as_strided((last + 1, h, w * c), (c, self._pixels_per_row * c, 1))
        self._shape = (h, w, c)
        self._targets, self._normalise, self._rows = targets, normalise, rows
        self._image_size, self._repeats, self._mixing = image_size, repeats, mixing
        self.batch_size, self.seed, self.size = batch_size, seed, n

    def with_seed(self, seed: int) -> "TensorLoader":
        """Return the same training set in another seed's order; the images are shared."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def __len__(self) -> int:
        """Return the steps per epoch; the last batch may be smaller."""
        return -(-images_per_pass(self.size, self._repeats) // self.batch_size)

    def pixels(self, positions: Tensor) -> Tensor:
        """Return the images (B, C, H, W) uint8 at these positions in the training set, as they are in the files."""
        corner = self._padding * (self._pixels_per_row + 1)
        windows = self._windows.index_select(0, positions * self._pixels_per_image + corner)
        return windows.view(-1, *self._shape).permute(0, 3, 1, 2)

    def epoch(
        self, epoch: int, first_step: int = 0, waiting: Waiting = nullcontext
    ) -> Generator[LoadedBatch, None, None]:
        """Yield images (B', C, H, W) float32, targets (B,) and indices (B,) of each step from ``first_step`` on, and
        ``Extras`` where there are some. Nothing is waited for.

        Images are this process's share of the batch; targets and indices cover the whole batch.
        """
        order = EpochOrder(self.seed, epoch, self.size, self._repeats, self.batch_size, self._targets.device)
        every = torch.arange(self.size, device=self._targets.device)
        views = {"": self._view, **self._views}
        places = {name: [self._places(v, epoch, every, k) for k in range(self._repeats)] for name, v in views.items()}
        height, width = self._size(epoch)
        for step in range(first_step, len(self)):
            indices, copies = order.batch(step)
            images = partial(self._of_view, epoch, places, indices, copies)
            mine, targets = whole_rows(self._rows(len(indices)), len(indices)), self._targets[indices]
            mix = self._mixing.draw(self.seed, epoch, step, height, width) if self._mixing else None
            yield loaded_batch(images, self._views, mine, targets, indices, mix)

    def _size(self, epoch: int) -> tuple[int, int]:
        """Return the height and width of an epoch's images."""
        side = size_in_epoch(self._image_size, epoch)
        return self._shape[:2] if side is None else (side, side)

    def _of_view(
        self, epoch: int, places: dict[str, list[_Places]], indices: Tensor, copies: Copies, name: str, rows: slice
    ) -> Tensor:
        """Return one view of a batch's ``rows``."""
        view = self._views.get(name, self._view)
        parts = ((k, part, indices[part]) for k, part in copies.parts(rows))
        return joined(((part, self._images(view, epoch, i, places[name][k], k)) for k, part, i in parts), rows)

    def _places(self, view: View, epoch: int, every: Tensor, copy: int) -> _Places:
        """Return where the images of a view's ``copy``-th copies are cropped."""
        height, width, _ = self._shape
        stream, margin = copy_stream(view.stream, copy), self._padding - view.crop_padding
        flipped, crops = None, None
        if view.crop_area is not None:
            heights, widths = (np.full(len(every), side) for side in (height, width))
            parts = training_views(
                self.seed, epoch, every.cpu().numpy(), heights, widths, view.crop_area, view.flip, stream
            )
            flipped = torch.from_numpy(parts[:, 4] == 1).to(every.device) if view.flip else None
            parts[:, 1] = np.where(parts[:, 4] == 1, width - parts[:, 1] - parts[:, 3], parts[:, 1])
            crops = torch.from_numpy(parts[:, :4].copy()).to(every.device)
            down = right = torch.zeros_like(every)
        else:
            across = 2 * view.crop_padding + 1
            place = rng.random_integers(self.seed, epoch, in_stream("crop", stream), every, across**2)
            down, right = place // across, place % across
            if view.flip:
                flipped = rng.random_integers(self.seed, epoch, in_stream("flip", stream), every, 2).bool()
        first_pixel = every * self._pixels_per_image + (down + margin) * self._pixels_per_row + right + margin
        return _Places(first_pixel, flipped, crops)

    def _images(self, view: View, epoch: int, indices: Tensor, places: _Places, copy: int) -> Tensor:
        """Return a view's images (B, C, H, W) float32 of positions in the training set."""
        pixels = self._windows.index_select(0, places.first_pixel[indices]).view(-1, *self._shape)
        if places.flipped is not None:
            pixels = _choose(places.flipped[indices], pixels.flip(2), pixels)
        pixels = pixels.permute(0, 3, 1, 2)
        size = self._size(epoch)
        if places.crops is not None or size != self._shape[:2]:
            crops = None if places.crops is None else places.crops[indices]
            pixels = resample(pixels, *size, crops)
        return view.finish(pixels, self._normalise, self.seed, epoch, indices, copy)


def _choose(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Choose images of ``yes`` or ``no``, (B, ...) contiguous uint8; copy eight bytes at a time if sizes allow it."""
    word = torch.int64 if yes.shape[1:].numel() % 8 == 0 else torch.uint8
    chosen = torch.where(condition[:, None], yes.flatten(1).view(word), no.flatten(1).view(word))
    return chosen.view(torch.uint8).view_as(no)


@dataclass
class TensorEvalSet:
    """The evaluation images, on the device."""

    name: str  # "test", or "validation": training images that are held out
    images: Tensor  # (N, C, H, W) uint8
    targets: Tensor  # (N,) int64
    normalise: Normalise
    size: int | None = None  # side to which they are resized; None: their own

    def batches(self, mine: slice) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (B, C, H, W) float32 and targets (B,) in file order, each image of ``mine`` once."""
        images, targets = self.images[mine], self.targets[mine]
        at_once = EVAL_BATCH[images.device.type if self.size is None else "cpu"]
        for start in range(0, len(images), at_once):
            part = slice(start, start + at_once)
            pixels = images[part] if self.size is None else resample(images[part], self.size, self.size)
            yield self.normalise(pixels), targets[part]


class TensorSource:
    """A dataset of small images that is held on the device as a whole."""

    decoder = ""

    def __init__(self, dataset: DatasetChoice, recipe: Recipe, folder: Path | None, device: torch.device, workers: int):
        info = dataset.info
        self._all = arrays.read_dataset(info, folder)
        self._chosen = self._all.chosen(dataset)
        self._held_out = dataset.validation is not None
        self._eval_size = largest_size(recipe.image_size)
        self._normalise, self._device, self._classes = Normalise(info, device), device, info.classes
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
                seed=seed,
                rows=rows,
                view=View.of(recipe),
                views=further_views(recipe),
                image_size=recipe.image_size,
                repeats=recipe.repeats,
                mixing=Mixing.of(recipe, self._classes),
            )
            # The loader has a padded copy, and nothing else reads them: of CIFAR-100, 150 MB.
            for part in (self._all, self._chosen):
                part.train_images = part.train_images[:0].copy()
        return self._loader.with_seed(seed)

    def evaluation(self, whole: bool = False) -> TensorEvalSet:
        part = self._all if whole else self._chosen
        images, targets = torch.from_numpy(part.test_images), torch.from_numpy(part.test_targets)
        name = "validation" if self._held_out and not whole else "test"
        on_device = images.to(self._device), targets.to(self._device)
        return TensorEvalSet(name, *on_device, self._normalise, self._eval_size)

    def unaugmented(self, positions: Tensor) -> Iterator[Tensor]:
        """Yield the training images at these positions, as if evaluated. Once training has begun, only its loader has
        them.
        """
        for part in positions.split(EVAL_BATCH["cuda"]):
            if self._loader:
                pixels = self._loader.pixels(part)
            else:
                pixels = torch.from_numpy(self._chosen.train_images[part.cpu().numpy()]).to(self._device)
            shown = TensorEvalSet("train", pixels, self.train_targets[part], self._normalise, self._eval_size)
            yield from (images for images, _ in shown.batches(slice(None)))

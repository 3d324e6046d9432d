"""Batches of images with objects, from a .beton file, decoded and resized by torchvision as they are needed.

Images are of many sizes: a batch is as high and wide as its largest image asks for, rounded up to a multiple of
``MULTIPLE``; beyond an image, on the right and below, it is 0.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.io import ImageReadMode, decode_jpeg

from harness import rng
from harness.data import beton
from harness.data.annotations import Annotations
from harness.data.coco_manifest import Category
from harness.data.coco_parts import Parts
from harness.data.load import aspect_batches, prefetch, resize
from harness.data.load.arrays import WrongData
from harness.data.load.beton import to_device
from harness.data.load.loader import Rows, Waiting
from harness.data.load.tensors import Normalise
from harness.spec.schema import Recipe
from harness.spec.science import DatasetChoice
from methods.detection import Objects

MULTIPLE = 32  # of a feature pyramid's coarsest stride that is halved evenly


class View(NamedTuple):
    """The size at which an image is shown, and whether it is flipped."""

    position: int  # in its file
    size: tuple[int, int]  # height and width it is resized to
    flip: bool


class CocoLoader:
    """Batches of a training set. Order, sizes and flips are pure functions of (seed, epoch, index)."""

    def __init__(
        self,
        path: Path,
        annotations: Annotations,  # of all images in the file
        positions: np.ndarray,  # (N,) int64, of the training images in the file
        normalise: Normalise,
        *,
        batch_size: int,
        sides: Sequence[int],  # one is drawn for each image's shorter side
        max_side: int,  # the most its longer side may have
        flip: bool,
        seed: int,
        rows: Callable[[int], slice],  # size of a batch -> this process's share of it
        workers: int,
        device: torch.device,
    ):
        self._images = _Images(path, workers, normalise, device)
        file = self._images.file
        self._objects = annotations.training_objects(file.heights, file.widths)
        self._positions, self._device, self._rows = positions, device, rows
        self._sides, self._max_side, self._flip = torch.tensor(sides), max_side, flip
        self._wide = torch.from_numpy(file.widths[positions] >= file.heights[positions])
        self.batch_size, self.seed, self.size = batch_size, seed, len(positions)

    def __len__(self) -> int:
        """Return the steps per epoch; the last batch may be smaller."""
        return -(-self.size // self.batch_size)

    def epoch(
        self, epoch: int, first_step: int = 0, waiting: Waiting = nullcontext
    ) -> Generator[tuple[Tensor, list[Objects], Tensor], None, None]:
        """Yield images, objects and indices (B,) for each step from ``first_step`` on.

        The images are this process's share of the batch, (b, 3, H, W) float32; only they are decoded. ``objects`` has
        the objects in each of them. H and W are the whole batch's.
        """
        every = torch.arange(self.size)
        side = self._sides[rng.random_integers(self.seed, epoch, "side", every, len(self._sides))].numpy()
        flip = (rng.random_integers(self.seed, epoch, "flip", every, 2) * self._flip).tolist()
        heights, widths = (of[self._positions] for of in (self._images.file.heights, self._images.file.widths))
        sizes = resize.resized_sizes(heights, widths, side, self._max_side)

        def view(index: int) -> View:
            height, width = sizes[index].tolist()
            return View(int(self._positions[index]), (height, width), bool(flip[index]))

        batches = aspect_batches.aspect_batches(self.seed, epoch, self._wide, self.batch_size)[first_step:]
        mine = [[view(index) for index in batch[self._rows(len(batch))].tolist()] for batch in batches]
        canvases = [canvas(sizes[batch.numpy()]) for batch in batches]
        with closing(self._images.shown(mine, canvases, waiting)) as shown:
            for batch, views, images in zip(batches, mine, shown, strict=True):
                yield images, [self._shown_objects(view) for view in views], batch.to(self._device)

    def _shown_objects(self, view: View) -> Objects:
        part, file = self._objects.of(view.position), self._images.file
        size = int(file.heights[view.position]), int(file.widths[view.position])
        boxes = resize.resized_boxes(self._objects.boxes[part], size, view.size, view.flip)
        labels = torch.from_numpy(self._objects.labels[part])
        return Objects(torch.from_numpy(boxes).to(self._device), labels.to(self._device), view.size)


# Images (1, 3, H, W) float32, then for each of them: its resized height and width, the original ones, its COCO id.
EvalBatch = tuple[Tensor, list[tuple[int, int]], list[tuple[int, int]], list[int]]


class CocoEvalSet:
    """The images a detector is evaluated on, in the order of the file, each once.

    One at a time, as padding would change what a detector finds, and so the result would depend on the processes.
    """

    def __init__(
        self,
        path: Path,
        annotations: Annotations,  # of all images in the file
        positions: np.ndarray,  # (N,) int64, of the images in the file; they rise
        name: str,
        normalise: Normalise,
        categories: Sequence[Category],
        *,
        side: int,  # of the shorter side
        max_side: int,  # the most the longer one may have
        workers: int,
        device: torch.device,
    ):
        self._images = _Images(path, workers, normalise, device)
        self._heights, self._widths = self._images.file.heights[positions], self._images.file.widths[positions]
        self._positions = positions
        self._sizes = resize.resized_sizes(self._heights, self._widths, side, max_side)
        self._annotations = annotations.of_images(positions)
        self.name, self.categories = name, categories  # a detection's label is a rank in these, counted from 1
        self.targets = torch.zeros(len(positions), dtype=torch.int64, device=device)

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def annotations(self) -> dict[str, Any]:
        """COCO's ground truth of these images, crowds included; a label is the rank of its ``categories``, from 1."""
        return self._annotations.as_coco(self._heights, self._widths, self.categories)

    def batches(self, mine: slice) -> Iterator[EvalBatch]:
        """Yield a part of the images."""
        sizes = [(height, width) for height, width in self._sizes[mine].tolist()]
        original_sizes = list(zip(self._heights[mine].tolist(), self._widths[mine].tolist(), strict=True))
        views = [[View(int(i), size, False)] for i, size in zip(self._positions[mine], sizes, strict=True)]
        canvases = [canvas(size[None]) for size in self._sizes[mine]]
        with closing(self._images.shown(views, canvases)) as shown:
            for images, size, original, number in zip(
                shown, sizes, original_sizes, self._annotations.image_ids[mine].tolist(), strict=True
            ):
                yield images, [size], [original], [number]


def canvas(sizes: np.ndarray) -> tuple[int, int]:
    """Return the height and width of a batch of images of these ``sizes`` (B, 2)."""
    height, width = (-(-sizes.max(axis=0) // MULTIPLE) * MULTIPLE).tolist()
    return height, width


class _Images:
    """The images of a .beton file, shown on canvases."""

    def __init__(self, path: Path, workers: int, normalise: Normalise, device: torch.device):
        self.file = beton.read_beton(path)
        self._path, self._workers, self._normalise, self._device = path, workers, normalise, device

    def shown(
        self, batches: Sequence[Sequence[View]], canvases: Sequence[tuple[int, int]], waiting: Waiting = nullcontext
    ) -> Generator[Tensor, None, None]:
        """Yield what each of the ``batches`` shows on its canvas: (b, 3, H, W) float32 on the device.

        Raises:
            WrongData: an image cannot be decoded.
        """
        begun = (self._begun(views, canvas) for views, canvas in zip(batches, canvases, strict=True))
        with closing(to_device(prefetch.prefetch(begun, self._workers), self._device, waiting)) as decoded:
            for pixels, views in zip(decoded, batches, strict=True):
                images = self._normalise(pixels.permute(0, 3, 1, 2))
                for image, (_, (height, width), _) in zip(images, views, strict=True):
                    image[:, height:] = 0
                    image[:, :height, width:] = 0
                yield images

    def _begun(self, views: Sequence[View], canvas: tuple[int, int]) -> prefetch.Batch:
        pixels = torch.empty((len(views), *canvas, 3), dtype=torch.uint8, pin_memory=torch.cuda.is_available())
        return pixels, [partial(self._show, view, image) for view, image in zip(views, pixels.numpy(), strict=True)]

    def _show(self, view: View, image: np.ndarray) -> None:
        """Fill the upper left of ``image`` (H, W, 3) uint8."""
        height, width = view.size
        whole = self._whole(view.position)
        pixels = whole.permute(1, 2, 0)  # a view in the order of memory
        pixels = pixels.flip(1) if view.flip else pixels
        # Like PIL, except that a few values differ by one level of 256, and ten times as fast if the strides are
        # channels-last. It releases Python's lock, as decoding does.
        (resized,) = interpolate(pixels[None].permute(0, 3, 1, 2), view.size, mode="bilinear", antialias=True)
        image[:height, :width] = resized.permute(1, 2, 0).numpy()

    def _whole(self, position: int) -> Tensor:
        """Return an image: (3, H, W) uint8, channels last in memory."""
        if self.file.are_pixels[position]:
            return torch.from_numpy(np.array(self.file.pixels(position))).permute(2, 0, 1)
        try:
            return decode_jpeg(torch.from_numpy(np.array(self.file.jpeg(position))), ImageReadMode.RGB)
        except RuntimeError as error:
            raise WrongData(f"{self._path}: image {position} cannot be decoded: {error}") from error


class CocoSource:
    """Images with objects, see ``Parts``."""

    decoder = "torchvision"

    def __init__(self, dataset: DatasetChoice, recipe: Recipe, folder: Path, device: torch.device, workers: int):
        assert recipe.sides and recipe.max_side and recipe.eval_side
        self._parts = Parts(dataset, folder)
        self._sides, self._max_side, self._eval_side = recipe.sides, recipe.max_side, recipe.eval_side
        self._device, self._workers = device, workers
        self._normalise = Normalise(dataset.info, device)
        self.train_targets = torch.zeros(len(self._parts.trained), dtype=torch.int64, device=device)

    def training(self, recipe: Recipe, seed: int, rows: Rows) -> CocoLoader:
        part = self._parts.manifest.train
        assert part
        return CocoLoader(
            self._parts.file(part),
            self._parts.annotations(part),
            self._parts.trained,
            self._normalise,
            batch_size=recipe.batch_size,
            sides=self._sides,
            max_side=self._max_side,
            flip=recipe.flip,
            seed=seed,
            rows=rows,
            workers=self._workers,
            device=self._device,
        )

    def evaluation(self, whole: bool = False) -> CocoEvalSet:
        part, positions, name = self._parts.evaluated(whole)
        return CocoEvalSet(
            self._parts.file(part),
            self._parts.annotations(part),
            positions,
            name,
            self._normalise,
            self._parts.manifest.categories,
            side=self._eval_side,
            max_side=self._max_side,
            workers=self._workers,
            device=self._device,
        )

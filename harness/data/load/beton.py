"""Loading from a .beton file: images are decoded as they are needed, by FFCV, or by PIL where FFCV is not installed.

Both show the same images in the same order, and of each the same part. What they make of its pixels differs a little:
they decode and resize by different methods.
"""

import importlib.util
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from harness import rng
from harness.data import beton
from harness.data.load.crops import as_views, evaluation_views, training_views
from harness.data.load.tensors import Normalise
from harness.errors import UserError, unknown

BACKENDS = ("ffcv", "pil")
EVAL_BATCH = 256


class Images(Protocol):
    """The images of a file, by whatever decodes them."""

    def batches(self, views: np.ndarray, batch_size: int, size: int) -> Generator[Tensor, None, None]:
        """Yield what each of the ``views`` (N, VIEW) shows, in their order: (B, size, size, 3) uint8 on the CPU, of
        ``batch_size`` images or what is left. A batch is valid until the next one is asked for. Closing the generator
        ends the decoding.

        Raises:
            WrongData: an image cannot be decoded.
        """
        ...


class BetonLoader:
    """Batches of a training set. Order, crops and flips are pure functions of (seed, epoch, index)."""

    def __init__(
        self,
        path: Path,
        positions: np.ndarray,  # (N,) int64, of the training images in the file
        normalise: Normalise,
        *,
        batch_size: int,
        image_size: int | tuple[tuple[int, int], ...],  # or ((epoch, size), ...): from which epoch on, counted from 0
        crop_area: tuple[float, float],
        flip: bool,
        seed: int,
        rows: Callable[[int], slice],  # size of a batch -> this process's share of it
        workers: int,
        device: torch.device,
        backend: str | None = None,
    ):
        file = beton.read_beton(path)
        self._images = _open(path, workers, backend)
        self._positions, self._normalise, self._device, self._rows = positions, normalise, device, rows
        self._heights, self._widths = file.heights[positions], file.widths[positions]
        self._targets = torch.from_numpy(file.labels[positions]).to(device)
        self._sizes = ((0, image_size),) if isinstance(image_size, int) else image_size
        self._crop_area, self._flip = crop_area, flip
        self.batch_size, self.seed, self.size = batch_size, seed, len(positions)

    def __len__(self) -> int:
        """Return the steps per epoch; the last batch may be smaller."""
        return -(-self.size // self.batch_size)

    def image_size(self, epoch: int) -> int:
        """Height and width in an epoch; epochs before the first are as that one."""
        return next((size for begins, size in reversed(self._sizes) if begins <= epoch), self._sizes[0][1])

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[tuple[Tensor, Tensor, Tensor], None, None]:
        """Yield images, targets (B,) and indices (B,) for each step from ``first_step`` on.

        The images are this process's share of the batch, (b, 3, size, size) float32; only they are decoded.
        """
        order = rng.random_permutation(self.seed, epoch, self.size)
        batches = order.split(self.batch_size)[first_step:]
        shares = [self._rows(len(batch)) for batch in batches]
        mine = torch.cat([order[:0], *(batch[share] for batch, share in zip(batches, shares, strict=True))]).numpy()
        size, at_once = self.image_size(epoch), len(range(self.batch_size)[self._rows(self.batch_size)])
        parts = training_views(
            self.seed, epoch, mine, self._heights[mine], self._widths[mine], self._crop_area, self._flip
        )
        decoded = self._images.batches(as_views(self._positions[mine], parts, size), at_once, size)
        with closing(to_device(decoded, self._device)) as pixels:
            for batch, share in zip(batches, shares, strict=True):
                indices = batch.to(self._device)
                if share.start == share.stop:
                    images = torch.empty((0, 3, size, size), device=self._device)
                else:
                    images = self._normalise(next(pixels).permute(0, 3, 1, 2))
                yield images, self._targets[indices], indices


class BetonEvalSet:
    """The images a model is evaluated on, in the order of the file, each once.

    ``crop_first`` and the two sizes are the protocol's: see ``crops.evaluation_views``.
    """

    def __init__(
        self,
        path: Path,
        positions: np.ndarray,  # (N,) int64, of the images in the file
        name: str,
        normalise: Normalise,
        *,
        size: int,
        resize: int,
        crop_first: bool,
        workers: int,
        device: torch.device,
        backend: str | None = None,
    ):
        file = beton.read_beton(path)
        self._images = _open(path, workers, backend)
        self._views = evaluation_views(
            positions, file.heights[positions], file.widths[positions], size=size, resize=resize, crop_first=crop_first
        )
        self._size, self._normalise, self._device = size, normalise, device
        self.name = name
        self.targets = torch.from_numpy(file.labels[positions]).to(device)  # (N,) int64

    def __len__(self) -> int:
        return len(self._views)

    def batches(self, mine: slice) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (B, 3, size, size) float32 and targets (B,) of the images in ``mine``."""
        decoded = self._images.batches(self._views[mine], EVAL_BATCH, self._size)
        with closing(to_device(decoded, self._device)) as pixels:
            for batch, targets in zip(pixels, self.targets[mine].split(EVAL_BATCH), strict=False):  # none: one of none
                yield self._normalise(batch.permute(0, 3, 1, 2)), targets


def chosen_backend() -> str:
    """Return the decoder: KD_LOADER's choice, else FFCV where it is installed, else PIL.

    Raises:
        UserError: KD_LOADER names none of them, or it is not installed.
    """
    named = os.environ.get("KD_LOADER") or ("ffcv" if importlib.util.find_spec("ffcv") else "pil")
    if named not in BACKENDS:
        raise UserError(f"KD_LOADER: {unknown('loader', named, BACKENDS)}")
    package, extra = ("ffcv", "ffcv") if named == "ffcv" else ("PIL", "images")
    if not importlib.util.find_spec(package):
        raise UserError(f"decoding images with {named} needs it installed: pip install 'kd-harness[{extra}]'")
    return named


def _open(path: Path, workers: int, backend: str | None) -> Images:
    """Return the file's images."""
    if (backend or chosen_backend()) == "pil":
        from harness.data.load.pillow_decoder import PilImages

        return PilImages(path, workers)
    threads = torch.get_num_threads()
    try:  # importing FFCV, and opening a file with it, sets torch's number of threads
        from harness.data.load.ffcv_decoder import FfcvImages

        return FfcvImages(path, workers)
    finally:
        torch.set_num_threads(threads)


def to_device(batches: Generator[Tensor, None, None], device: torch.device) -> Generator[Tensor, None, None]:
    """Copy batches to a GPU in a stream of its own, while the GPU computes."""
    with closing(batches):
        if device.type == "cpu":
            yield from batches
            return
        copies, copied = torch.cuda.Stream(device), torch.cuda.Event()
        for batch in batches:
            with torch.cuda.stream(copies):
                on_device = batch.to(device, non_blocking=True)
                copied.record(copies)
            compute = torch.cuda.current_stream(device)
            compute.wait_event(copied)
            on_device.record_stream(compute)  # its memory is not used again before the computation is done with it
            copied.synchronize()  # only the copy: `batch` is written over once the next one is asked for
            yield on_device

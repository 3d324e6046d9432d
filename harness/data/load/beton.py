"""Loading from a .beton file: images are decoded as they are needed, by FFCV, or by PIL where FFCV is not installed.

Both show the same images in the same order, and of each the same part. What they make of its pixels differs a little:
they decode and resize by different methods.
"""

import importlib.util
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from harness.data import beton
from harness.data.load.batches import EpochOrder, joined, loaded_batch, size_in_epoch, whole_rows
from harness.data.load.crops import VIEW, as_views, evaluation_views, training_views
from harness.data.load.loader import LoadedBatch, Waiting
from harness.data.load.mixing import Mixing
from harness.data.load.tensors import Normalise
from harness.data.load.view import View, copy_stream
from harness.errors import UserError, unknown
from harness.spec.repeated_augmentation import images_per_pass

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
        crop_area: tuple[float, float] | None = None,
        flip: bool = False,
        seed: int,
        rows: Callable[[int], slice],  # size of a batch -> this process's share of it
        workers: int,
        device: torch.device,
        backend: str | None = None,
        view: View | None = None,  # in place of crop_area and flip
        views: Mapping[str, View] | None = None,  # further ones
        repeats: int = 1,
        mixing: Mixing | None = None,
    ):
        file = beton.read_beton(path)
        self._images = _open(path, workers, backend)
        self._positions, self._normalise, self._device, self._rows = positions, normalise, device, rows
        self._heights, self._widths = file.heights[positions], file.widths[positions]
        self._targets = torch.from_numpy(file.labels[positions]).to(device)
        self._image_size = image_size
        self._views = {"": view or View(crop_area=crop_area, flip=flip), **(views or {})}
        self._repeats, self._mixing = repeats, mixing
        self.batch_size, self.seed, self.size = batch_size, seed, len(positions)

    def __len__(self) -> int:
        """Return the steps per epoch; the last batch may be smaller."""
        return -(-images_per_pass(self.size, self._repeats) // self.batch_size)

    def image_size(self, epoch: int) -> int:
        """Height and width in an epoch; epochs before the first are as that one."""
        size = size_in_epoch(self._image_size, epoch)
        assert size is not None
        return size

    def epoch(
        self, epoch: int, first_step: int = 0, waiting: Waiting = nullcontext
    ) -> Generator[LoadedBatch, None, None]:
        """Yield images, targets (B,) and indices (B,) for each step from ``first_step`` on, and ``Extras`` where there
        are some.

        The images are this process's share of the batch, (b, 3, size, size) float32. Only they are decoded and, where
        images are mixed, their partners in other processes' shares.
        """
        names = [name for name in self._views if name]
        order = EpochOrder(self.seed, epoch, self.size, self._repeats, self.batch_size, torch.device("cpu"))
        size, steps = self.image_size(epoch), range(first_step, len(self))
        parts = [part for step in steps for part in self._parts(order, step)]
        at_once = sum(len(part.indices) for part in self._parts(order, 0))
        decoded = self._images.batches(self._crops(epoch, parts, size), at_once, size)
        with closing(to_device(decoded, self._device, waiting)) as pixels:
            for step in steps:
                indices, _ = order.batch(step)
                count, indices = len(indices), indices.to(self._device)
                mine, targets = whole_rows(self._rows(count), count), self._targets[indices]
                if mine.start == mine.stop:
                    shown = torch.empty((0, size, size, 3), dtype=torch.uint8, device=self._device)
                else:
                    shown = next(pixels)
                images = partial(self._of_view, epoch, shown, list(self._parts(order, step)))
                mix = self._mixing.draw(self.seed, epoch, step, size, size) if self._mixing else None
                yield loaded_batch(images, names, mine, targets, indices, mix)

    def _parts(self, order: EpochOrder, step: int) -> Iterator["_Part"]:
        """Yield the parts of a step that are decoded, in their order."""
        indices, copies = order.batch(step)
        mine = whole_rows(self._rows(len(indices)), len(indices))
        every = [mine]
        if self._mixing is not None and mine != slice(0, len(indices)):
            every.append(slice(len(indices) - mine.stop, len(indices) - mine.start))
        for name in self._views:
            for rows in every:
                for number, part in copies.parts(rows):
                    yield _Part(name, rows, part, number, indices[part])

    def _crops(self, epoch: int, parts: list["_Part"], size: int) -> np.ndarray:
        """Return what is decoded of each image, (N,) VIEW; the crops of an epoch are drawn at once."""
        by_stream: dict[tuple[str, int], list[int]] = {}
        for i, part in enumerate(parts):
            by_stream.setdefault((part.view, part.copy), []).append(i)
        starts = np.cumsum([0, *(len(part.indices) for part in parts)])
        crops = np.zeros(starts[-1], VIEW)
        for (name, number), chosen in by_stream.items():
            view = self._views[name]
            assert view.crop_area is not None
            indices = torch.cat([parts[i].indices for i in chosen]).numpy()
            heights, widths = self._heights[indices], self._widths[indices]
            stream = copy_stream(view.stream, number)
            drawn = training_views(self.seed, epoch, indices, heights, widths, view.crop_area, view.flip, stream)
            places = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in chosen])
            crops[places] = as_views(self._positions[indices], drawn, size)
        return crops

    def _of_view(self, epoch: int, shown: Tensor, parts: list["_Part"], name: str, rows: slice) -> Tensor:
        """Return one view of a batch's ``rows`` from what was decoded for its step."""
        view, start, images = self._views[name], 0, []
        for part in parts:
            stop = start + len(part.indices)
            if (part.view, part.of) == (name, rows):
                pixels = shown[start:stop].permute(0, 3, 1, 2)
                indices = part.indices.to(self._device)
                finished = view.finish(pixels, self._normalise, self.seed, epoch, indices, part.copy)
                images.append((part.rows, finished))
            start = stop
        return joined(images, rows)


@dataclass(frozen=True)
class _Part:
    """Rows of a step that are decoded together: one view and one copy of their images."""

    view: str
    of: slice  # rows of the batch, of which these are some
    rows: slice
    copy: int
    indices: Tensor  # (B,) positions in the training set


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
        with _plain_dictionaries():
            from harness.data.load.ffcv_decoder import FfcvImages

        return FfcvImages(path, workers)
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _plain_dictionaries() -> Iterator[None]:
    """Let FFCV keep the two constants for which it makes one of numba's dictionaries, when it is imported, in one of
    Python's: numba compiles its own for three seconds."""
    import numba.typed

    typed = numba.typed.Dict
    numba.typed.Dict = dict
    try:
        yield
    finally:
        numba.typed.Dict = typed


def to_device(
    batches: Generator[Tensor, None, None], device: torch.device, waiting: Waiting = nullcontext
) -> Generator[Tensor, None, None]:
    """Yield batches on a device; they are copied to a GPU in a stream of its own, while the GPU computes."""
    with closing(batches):
        if device.type == "cuda":
            batches = _copies(batches, device)
        while True:
            with waiting():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


def _copies(batches: Iterator[Tensor], device: torch.device) -> Generator[Tensor, None, None]:
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

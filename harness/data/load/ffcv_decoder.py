"""Decoding with FFCV (Leclerc et al. 2023, arXiv:2306.12517), with a decoder that draws no random numbers.

FFCV's own random decoders draw from generators of numba's threads: what an image looks like depends on the number of
threads and on all that they have decoded before (its issues 140, 164, 392). Here the order of an epoch says of each
image which part of it is looked at. FFCV hands a batch's rows of that order to the decoder as its sample indices.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from queue import Empty
from typing import Any

import ffcv.loader.loader
import numpy as np
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.libffcv import imdecode, memcpy, resize_crop
from ffcv.loader import Loader, OrderOption
from ffcv.loader.epoch_iterator import EpochIterator
from ffcv.memory_managers.os_cache import OSCacheContext, OSCacheManager
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.compiler import Compiler
from ffcv.pipeline.state import State
from ffcv.reader import Reader
from ffcv.transforms import ToTensor
from llvmlite import ir
from numba import config, njit, prange, types
from numba.extending import intrinsic
from torch import Tensor

from harness.data.beton import PAGE, PIXELS
from harness.data.load.area_resize import can_shrink, shown, shrink
from harness.data.load.crops import VIEW
from harness.data.load.jpeg_part import cut
from harness.data.load.pillow_decoder import PilImages

AHEAD = 2  # batches decoded before they are asked for
TASK = np.dtype([*VIEW.descr, ("failed", np.int32)])  # a view, and where the decoder says that it could not


class ViewDecoder(SimpleRGBImageDecoder):
    """A decoder of stored images that cuts out, resizes and flips the parts that a batch's rows (TASK) name.

    Resizing is OpenCV's INTER_AREA, FFCV's own. ``size`` may change from epoch to epoch; nothing is compiled again.
    """

    def __init__(self, workers: int):
        super().__init__()
        self.workers, self.size = workers, 0

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        shape, pixel = (self.size, self.size, 3), np.dtype("u1")
        return replace(previous_state, jit_mode=True, shape=shape, dtype=pixel), AllocationQuery(shape, pixel)

    def generate_code(self) -> Callable[..., Any]:
        workers, read = self.workers, self.memory_read
        largest = 3 * int((self.metadata["height"].astype(np.int64) * self.metadata["width"]).max())

        def decode(tasks, images, metadata, storage):  # type: ignore[no-untyped-def]
            begun = np.zeros(1, np.int64)
            for _ in prange(workers):
                # Of one image after another: they stay in the core's cache. `shrink` reads a byte more.
                pixels, part = np.empty(largest + 1, np.uint8), np.empty(PAGE, np.int8)
                i = _take(begun)  # whoever is free: images take from a tenth of the mean time to three times as much
                while i < len(tasks):
                    field = metadata[tasks[i]["position"]]
                    content = read(field["data_ptr"], storage)
                    _show(tasks[i], field["mode"], content, field["height"], field["width"], pixels, part, images[i])
                    i = _take(begun)
            return images[: len(tasks)]

        decode.is_parallel = True  # type: ignore[attr-defined]
        return decode


@intrinsic
def _take(_typing: Any, numbers: Any) -> Any:
    """Return the only one of ``numbers`` (1,) int64, and count it up, in one step for all threads."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", first, ir.IntType(64)(1), "monotonic")

    return types.int64(numbers), generate


_decode, _resize, _copy = (njit(nogil=True)(function) for function in (imdecode, resize_crop, memcpy))


@njit(nogil=True)  # out here it is compiled once for all loaders
def _show(task, mode, content, height, width, pixels, part, image):  # type: ignore[no-untyped-def]
    h, w = np.int64(height), np.int64(width)  # to numba, int() of what is unsigned is unsigned
    top, left, row, column = task["top"], task["left"], task["row"], task["column"]
    bottom, right = top + task["height"], left + task["width"]
    to_height, to_width, size = task["to_height"], task["to_width"], len(image)
    shrinks = can_shrink(bottom - top, right - left, to_height, to_width)
    needed = top, left, bottom, right
    if shrinks:  # no more than the window shows
        first_row, last_row = shown(bottom - top, to_height, row, size)
        first_column, last_column = shown(right - left, to_width, column, size)
        needed = top + first_row, left + first_column, top + last_row, left + last_column
    if mode == PIXELS:
        _copy(content, pixels)  # as many bytes as `content` has, which `read_beton` has compared with h and w
    else:
        n, y, x, part_height, part_width = cut(content, h, w, *needed, part)
        failed = True
        if n > 0:
            failed = _decode_jpeg(part[:n], pixels, part_height, part_width)
        if failed:  # of a part: the whole says what is wrong
            n = 0
            failed = _decode_jpeg(content, pixels, h, w)
        if failed:
            task["failed"] = 1
            return
        if n > 0:
            top, bottom, left, right, h, w = top - y, bottom - y, left - x, right - x, part_height, part_width
    if shrinks:
        start = 3 * (top * w + left)  # before the first pixel, if the part begins with the window
        flip = task["flip"] != 0
        shrink(pixels, 3 * w, start, bottom - top, right - left, to_height, to_width, row, column, flip, image)
        return
    whole = pixels[: 3 * h * w].reshape(h, w, 3)
    if to_height == size and to_width == size:
        _resize(whole, top, bottom, left, right, image)
    else:
        resized = np.empty((to_height, to_width, 3), np.uint8)
        _resize(whole, top, bottom, left, right, resized)
        for y in range(size):  # assigning slices takes numba four seconds to compile
            for x in range(size):
                for c in range(3):
                    image[y, x, c] = resized[row + y, column + x, c]
    if task["flip"]:
        for y in range(size):
            for x in range(size // 2):
                for c in range(3):
                    a, b = image[y, x, c], image[y, size - 1 - x, c]
                    image[y, x, c], image[y, size - 1 - x, c] = b, a


@njit(nogil=True)
def _decode_jpeg(jpeg, pixels, height, width):  # type: ignore[no-untyped-def]
    h, w = np.uint32(height), np.uint32(width)
    return _decode(jpeg, pixels, h, w, h, w, 0, 0, 1, 1, False, False) != 0


class MappedFile(OSCacheManager):
    """FFCV's reader of a mapped file, without its tables, a Python set for each image that only its other reader needs,
    and its fault, see below."""

    def __init__(self, reader: Reader):
        self.reader, self.context = reader, OSCacheContext(self)
        order = np.argsort(reader.alloc_table["ptr"])
        self.ptrs, self.sizes = reader.alloc_table["ptr"][order], reader.alloc_table["size"][order]

    @property
    def state_type(self) -> types.Tuple:
        content, numbers = types.Array(types.uint8, 1, "C", readonly=True), types.Array(types.uint64, 1, "C")
        return types.Tuple([content, numbers, numbers])

    def compile_reader(self) -> Callable[..., np.ndarray]:
        def read(address, state):  # type: ignore[no-untyped-def]
            content, starts, sizes = state
            return content[address : address + sizes[np.searchsorted(starts, address)]]

        compiled: Callable[..., np.ndarray] = Compiler.compile(read)
        return compiled


# FFCV's own sets ``mutable`` on numba's own type of byte arrays: each of its loaders spoils what was compiled before.
OSCacheManager.state_type, OSCacheManager.compile_reader = MappedFile.state_type, MappedFile.compile_reader


@contextmanager
def _reading_mapped_files() -> Iterator[None]:
    """Let a Loader that is made meanwhile read its file by ``MappedFile``; its class is not one of FFCV's options."""
    original = ffcv.loader.loader.OSCacheManager
    ffcv.loader.loader.OSCacheManager = MappedFile
    try:
        yield
    finally:
        ffcv.loader.loader.OSCacheManager = original


class FfcvImages:
    """The images of a .beton file, decoded by FFCV in ``workers`` threads (at most numba's).

    The file is mapped and not read into memory: pages that other programs need go, and come again.
    """

    def __init__(self, path: Path, workers: int):
        workers = min(workers, config.NUMBA_NUM_THREADS)
        self._path, self._workers, self._decoder = path, workers, ViewDecoder(workers)
        with _reading_mapped_files():
            self._loader = Loader(
                str(path), batch_size=1, num_workers=workers, os_cache=True, order=OrderOption.SEQUENTIAL,
                batches_ahead=AHEAD, pipelines={"image": [self._decoder, ToTensor()], "label": None, "index": None},
            )  # fmt: skip

    @cached_property
    def _by_pil(self) -> PilImages:
        return PilImages(self._path, self._workers)

    def batches(self, views: np.ndarray, batch_size: int, size: int) -> Generator[Tensor, None, None]:
        """See ``beton.Images.batches``."""
        tasks = np.zeros(len(views), TASK)
        tasks[list(VIEW.names or ())] = views
        self._loader.batch_size, self._decoder.size = batch_size, size
        epoch = _Epoch(self._loader, tasks)
        try:
            for start in range(0, len(tasks), batch_size):
                (images,) = next(epoch)
                batch = tasks[start : start + batch_size]
                for row in np.flatnonzero(batch["failed"]):  # TurboJPEG counts what is merely odd as failed, too
                    self._by_pil.show(batch[row], images[row].numpy())
                yield images
        finally:
            epoch.close()


class _Epoch(EpochIterator):
    """FFCV's iterator, a thread, which raises what went wrong in it (FFCV's leaves its reader waiting) and is gone when
    it is closed, however much of the epoch is left (FFCV's issue 393)."""

    def run(self) -> None:
        self.error: BaseException | None = None
        try:
            super().run()
        except BaseException as error:
            self.error = error
            self.output_queue.put(None)

    def __next__(self) -> tuple[Tensor, ...]:
        try:
            batch: tuple[Tensor, ...] = super().__next__()
        except StopIteration:
            if self.error is not None:
                raise self.error from None
            raise
        return batch

    def close(self) -> None:
        self.iter_ixes = iter(())  # no further batch is begun
        super().close()
        while self.is_alive():  # it may be waiting for room
            with suppress(Empty):
                self.output_queue.get(timeout=0.01)

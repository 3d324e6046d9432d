"""Decoding with FFCV's decoder (Leclerc et al. 2023, arXiv:2306.12517), without FFCV's loader.

FFCV's own random decoders draw from generators of numba's threads: what an image looks like depends on the number of
threads and on all that they have decoded before (its issues 140, 164, 392). Here the order of an epoch says of each
image which part of it is looked at, and threads only share out the images of a batch. FFCV's loader compiles a pipeline
for each file, for seconds, and its threads wait for each other at the end of each batch.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from functools import cached_property, partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ffcv.libffcv import imdecode, memcpy, resize_crop
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

from harness.data import beton
from harness.data.load import prefetch
from harness.data.load.area_resize import can_shrink, shown, shrink
from harness.data.load.crops import VIEW
from harness.data.load.jpeg_part import cut
from harness.data.load.pillow_decoder import PilImages

TASK = np.dtype([*VIEW.descr, ("failed", np.int32)])  # a view, and where the decoder says that it could not


class FfcvImages:
    """The images of a .beton file, decoded by FFCV in ``workers`` threads.

    The file is mapped and not read into memory: pages that other programs need go, and come again.
    """

    def __init__(self, path: Path, workers: int):
        self._path, self._file, self._workers = path, beton.read_beton(path), workers

    @cached_property
    def _by_pil(self) -> PilImages:
        return PilImages(self._path, self._workers)

    def batches(self, views: np.ndarray, batch_size: int, size: int) -> Generator[Tensor, None, None]:
        """See ``beton.Images.batches``."""
        tasks = np.zeros(len(views), TASK)
        tasks[list(VIEW.names or ())] = views
        batches = [tasks[start : start + batch_size] for start in range(0, len(tasks), batch_size)]
        with closing(prefetch.prefetch(self._begun(batches, size), self._workers)) as decoded:
            for images, batch in zip(decoded, batches, strict=True):
                for row in np.flatnonzero(batch["failed"]):  # TurboJPEG counts what is merely odd as failed, too
                    self._by_pil.show(batch[row], images[row].numpy())
                yield images

    def _begun(self, batches: list[np.ndarray], size: int) -> Iterator[prefetch.Batch]:
        shape, pinned = (max(map(len, batches), default=0), size, size, 3), torch.cuda.is_available()
        # A batch is valid until the next one is asked for, and then its memory is that of the last one begun.
        memory = [torch.empty(shape, dtype=torch.uint8, pin_memory=pinned) for _ in range(prefetch.AHEAD + 1)]
        file = self._file
        stored = file.content, file.starts, file.sizes, file.are_pixels, file.heights, file.widths
        for batch, buffer in zip(batches, cycle(memory), strict=False):
            images = buffer[: len(batch)]
            part = partial(_show_some, np.zeros(1, np.int64), batch, images.numpy(), *stored)
            yield images, [part] * self._workers


@intrinsic
def _take(_typing: Any, numbers: Any) -> Any:
    """Return the only one of ``numbers`` (1,) int64, and count it up, in one step for all threads."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", first, ir.IntType(64)(1), "monotonic")

    return types.int64(numbers), generate


_decode, _resize, _copy = (njit(nogil=True)(function) for function in (imdecode, resize_crop, memcpy))


@njit(nogil=True)
def _show_some(begun, tasks, images, content, starts, sizes, are_pixels, heights, widths):  # type: ignore[no-untyped-def]
    """Show images of a batch until there are none left that no other thread has begun, ``begun`` (1,) being counted."""
    area = longest = 0
    for task in tasks:
        k = task["position"]
        area, longest = max(area, np.int64(heights[k]) * widths[k]), max(longest, sizes[k])
    # Of one image after another: they stay in the core's cache. `shrink` reads a byte more.
    pixels, part = np.empty(3 * area + 1, np.uint8), np.empty(longest, np.int8)
    i = _take(begun)
    while i < len(tasks):
        k = tasks[i]["position"]
        stored = content[starts[k] : starts[k] + sizes[k]]
        _show(tasks[i], are_pixels[k], stored, heights[k], widths[k], pixels, part, images[i])
        i = _take(begun)


@njit(nogil=True)
def _show(task, is_pixels, content, height, width, pixels, part, image):  # type: ignore[no-untyped-def]
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
    if is_pixels:
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

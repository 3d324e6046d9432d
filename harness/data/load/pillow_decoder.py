"""Decoding with PIL, where FFCV is not installed: the same parts of the same images."""

import io
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from harness.data import beton
from harness.data.load import prefetch
from harness.data.load.arrays import WrongData
from harness.data.load.jpeg_part import cut


class PilImages:
    """The images of a .beton file, decoded by PIL in ``workers`` threads."""

    def __init__(self, path: Path, workers: int):
        self._path, self._file, self._workers = path, beton.read_beton(path), workers

    def batches(self, views: np.ndarray, batch_size: int, size: int) -> Generator[Tensor, None, None]:
        """See ``beton.Images.batches``."""
        return prefetch.prefetch(self._begun(views, batch_size, size), self._workers)

    def _begun(self, views: np.ndarray, batch_size: int, size: int) -> Iterator[prefetch.Batch]:
        for start in range(0, len(views), batch_size):
            batch = views[start : start + batch_size]
            images = torch.empty((len(batch), size, size, 3), dtype=torch.uint8, pin_memory=torch.cuda.is_available())
            yield images, [partial(self.show, *each) for each in zip(batch, images.numpy(), strict=True)]

    def show(self, view: np.void, image: np.ndarray) -> None:
        """Fill ``image`` (size, size, 3) uint8.

        Raises:
            WrongData: what it should show cannot be decoded.
        """
        size = len(image)
        left, top, column, row = (int(view[name]) for name in ("left", "top", "column", "row"))
        height, width = int(view["height"]), int(view["width"])
        held, top, left = self._part(int(view["position"]), top, left, top + height, left + width)
        part = held.crop((left, top, left + width, top + height))
        part = part.resize((int(view["to_width"]), int(view["to_height"])), Image.Resampling.BILINEAR)
        pixels = np.asarray(part)[row : row + size, column : column + size]
        image[:] = pixels[:, ::-1] if view["flip"] else pixels

    def _part(self, position: int, top: int, left: int, bottom: int, right: int) -> tuple[Image.Image, int, int]:
        """Return an image or as much of it as holds a crop, and the crop's first row and column in that."""
        file = self._file
        if file.are_pixels[position]:
            return Image.fromarray(file.pixels(position)), top, left
        jpeg = file.jpeg(position).tobytes()
        part = bytearray(len(jpeg))
        height, width = int(file.heights[position]), int(file.widths[position])
        n, y, x, *_ = cut(jpeg, height, width, top, left, bottom, right, part)
        try:
            if n:
                return Image.open(io.BytesIO(part[:n])).convert("RGB"), top - y, left - x
            return Image.open(io.BytesIO(jpeg)).convert("RGB"), top, left
        except Exception as error:  # PIL's are of many kinds
            raise WrongData(f"{self._path}: image {position} cannot be decoded: {error}") from error

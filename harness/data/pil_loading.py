"""Decoding with PIL, where FFCV is not installed: the same parts of the same images.

In threads: PIL lets go of Python's lock while it decodes and resizes, and threads need neither copies of a batch nor an
end of their own when an epoch is left early.
"""

import io
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from harness.data import beton
from harness.data.raw import WrongData

AHEAD = 2  # batches begun before they are asked for


class PilImages:
    """The images of a .beton file, decoded by PIL in ``workers`` threads."""

    def __init__(self, path: Path, workers: int):
        self._path, self._file, self._workers = path, beton.read(path), workers

    def batches(self, views: np.ndarray, batch_size: int, size: int) -> Generator[Tensor, None, None]:
        """As ``stored.Images``."""
        pool = ThreadPoolExecutor(self._workers)
        begun: deque[tuple[Tensor, list[Future[None]]]] = deque()
        try:
            for start in range(0, len(views), batch_size):
                batch = views[start : start + batch_size]
                images = torch.empty(
                    (len(batch), size, size, 3), dtype=torch.uint8, pin_memory=torch.cuda.is_available()
                )
                each = zip(batch, images.numpy(), strict=True)
                begun.append((images, [pool.submit(self.show, view, image) for view, image in each]))
                if len(begun) > AHEAD:
                    yield _finished(*begun.popleft())
            while begun:
                yield _finished(*begun.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def show(self, view: np.void, image: np.ndarray) -> None:
        """Fills ``image`` (size, size, 3) uint8.

        Raises:
            WrongData: what it should show cannot be decoded.
        """
        size = len(image)
        left, top, column, row = (int(view[name]) for name in ("left", "top", "column", "row"))
        try:
            whole = Image.open(io.BytesIO(self._file.jpeg(view["position"]).tobytes())).convert("RGB")
        except Exception as error:  # PIL's are of many kinds
            raise WrongData(f"{self._path}: image {view['position']} cannot be decoded: {error}") from error
        part = whole.crop((left, top, left + int(view["width"]), top + int(view["height"])))
        part = part.resize((int(view["to_width"]), int(view["to_height"])), Image.Resampling.BILINEAR)
        pixels = np.asarray(part)[row : row + size, column : column + size]
        image[:] = pixels[:, ::-1] if view["flip"] else pixels


def _finished(images: Tensor, parts: list[Future[None]]) -> Tensor:
    for part in parts:
        part.result()
    return images

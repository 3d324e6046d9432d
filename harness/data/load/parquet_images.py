"""Images of one size in Parquet shards, as the Hugging Face Hub has them, and their labels."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.load.arrays import WrongData
from harness.data.parquet_columns import find_columns
from harness.errors import UserError

Shape = tuple[int, int, int]  # (H, W, C)


def read_split(
    paths: Sequence[Path], shape: Shape, formats: tuple[str, ...], title: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, (N, C, H, W) uint8, and the labels, (N,) int64, of a split's shards, in their order.

    ``formats``: as Pillow calls those that the images may have; ``title``: the dataset's, for messages.

    Raises:
        WrongData: a shard is damaged, or holds something else.
    """
    images, labels = [], []
    for path in paths:
        try:
            for content, label in _rows(path):
                images.append(pixels_of(content, shape, formats))
                labels.append(label)
        except UserError as e:
            raise WrongData(str(e)) from None
        except ModuleNotFoundError as e:
            raise WrongData(f"{path}: reading images needs {e.name}: pip install 'kd-harness[images]'") from None
        except Exception as e:  # damaged files make readers raise anything
            raise WrongData(f"{path}: not {title} (image {len(images):,}: {e})") from None
    stacked = np.array(images, np.uint8).reshape(-1, *shape)
    return np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)), np.array(labels, np.int64)


def _rows(path: Path) -> Iterator[tuple[bytes, Any]]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        columns = find_columns(path, file.schema_arrow)
        for batch in file.iter_batches(1024, columns=[columns.content, columns.label], use_threads=False):
            image = batch.column(columns.content.split(".")[0])
            contents = image.field("bytes") if columns.content.endswith(".bytes") else image
            yield from zip(contents.to_pylist(), batch.column(columns.label).to_pylist(), strict=True)


def pixels_of(content: bytes, shape: Shape, formats: tuple[str, ...]) -> np.ndarray:
    """Return an image's pixels, (H, W, C) uint8; grey ones become RGB.

    Raises:
        ValueError: it has another shape.
        Exception: it is damaged.
    """
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=formats) as image:
        pixels = np.asarray(image.convert("RGB") if image.mode == "L" else image)
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise ValueError(f"pixels are {pixels.dtype} of shape {pixels.shape}, expected uint8 of shape {shape}")
    return pixels

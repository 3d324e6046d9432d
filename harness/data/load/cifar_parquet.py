"""CIFAR-100 in Parquet shards, as the Hugging Face Hub has it: PNGs, which lose nothing, and fine labels."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.load.arrays import WrongData
from harness.data.parquet_columns import find_columns
from harness.errors import UserError

SHAPE = (32, 32, 3)


def read_split(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, (N, 3, 32, 32) uint8, and the fine labels, (N,) int64, of a split's shards, in their order.

    Raises:
        WrongData: a shard is damaged, or holds something else.
    """
    images, labels = [], []
    for path in paths:
        try:
            for content, label in _rows(path):
                images.append(_pixels(content))
                labels.append(label)
        except UserError as e:
            raise WrongData(str(e)) from None
        except ModuleNotFoundError as e:
            raise WrongData(f"{path}: reading PNGs needs {e.name}: pip install 'kd-harness[images]'") from None
        except Exception as e:  # damaged files make readers raise anything
            raise WrongData(f"{path}: not CIFAR-100 (image {len(images):,}: {e})") from None
    stacked = np.array(images, np.uint8).reshape(-1, *SHAPE)
    return np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)), np.array(labels, np.int64)


def _rows(path: Path) -> Iterator[tuple[bytes, Any]]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        columns = find_columns(path, file.schema_arrow)
        for batch in file.iter_batches(1024, columns=[columns.content, columns.label], use_threads=False):
            image = batch.column(columns.content.split(".")[0])
            contents = image.field("bytes") if columns.content.endswith(".bytes") else image
            yield from zip(contents.to_pylist(), batch.column(columns.label).to_pylist(), strict=True)


def _pixels(content: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        pixels = np.asarray(image)
    if pixels.shape != SHAPE or pixels.dtype != np.uint8:
        raise ValueError(f"pixels are {pixels.dtype} of shape {pixels.shape}, expected uint8 of shape {SHAPE}")
    return pixels

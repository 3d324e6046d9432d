"""The 125 images of imagenet_sample_125, eight times over: as files, and as `prepare` stores them."""

import os
import sys
from pathlib import Path

from harness.data import beton
from harness.data.images import stored
from harness.data.manifest import Settings

TIMES, BATCH, SIZE = 8, 64, 224


def source() -> Path:
    """The folder of class folders."""
    found = Path(os.environ.get("KD_DATA", "")) / "imagenet_sample_125" / "val"
    if not found.is_dir():
        sys.exit("needs imagenet_sample_125 below the folder that KD_DATA names")
    return found


def store(path: Path, side: int) -> None:
    """Writes what `prepare --max-side SIDE` does."""
    images = [stored(file, Settings(max_side=side, quality=90)) for file in sorted(source().glob("*/*"))]
    with path.open("wb") as file:
        writer = beton.Writer(file, TIMES * len(images))
        for label, image in list(enumerate(images)) * TIMES:
            writer.add(label, image.height, image.width, image.jpeg)
        writer.finish()

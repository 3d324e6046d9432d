"""The 125 images of imagenet_sample_125, eight times over: as files, and as `prepare` writes them."""

import importlib.util
import os
from pathlib import Path

from harness.data import beton
from harness.data.manifest import Settings
from harness.data.prepare.encode import EncodedImage, encode_image

TIMES, BATCH, SIZE = 8, 64, 224


SOURCE = Path(os.environ.get("KD_DATA", "")) / "imagenet_sample_125" / "val"


def missing() -> str:
    """Return what these benches need and this machine lacks; empty if nothing."""
    if not importlib.util.find_spec("ffcv"):
        return "ffcv is not installed"
    return "" if SOURCE.is_dir() else "no imagenet_sample_125 in the folder that KD_DATA names"


def stored_images(side: int, restart: int = 1) -> list[EncodedImage]:
    """Return the images of the sample as `prepare --max-side SIDE --restart RESTART` stores them."""
    settings = Settings(max_side=side, quality=90, restart=restart)
    return [encode_image(file.read_bytes(), file.name, settings) for file in sorted(SOURCE.glob("*/*"))]


def write_beton(path: Path, side: int, restart: int = 1) -> None:
    """Write what `prepare --max-side SIDE --restart RESTART` would."""
    images = stored_images(side, restart)
    with path.open("wb") as file:
        writer = beton.Writer(file, TIMES * len(images))
        for label, image in list(enumerate(images)) * TIMES:
            writer.add(label, image.height, image.width, image.jpeg)
        writer.finish()

"""Synthetic images and their files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def encode_jpeg(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **{"quality": 90, **options})
    return out.getvalue()


def encode_png(pixels: np.ndarray) -> bytes:
    """Return a PNG of (H, W, 3) uint8."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def save_image(path: Path, image: Image.Image, kind: str = "JPEG", **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, kind, **options)


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Return an image of smooth colours, which JPEG preserves."""
    y, x = np.mgrid[:height, :width] / 10
    channels = [127 + 120 * np.sin(x + seed), 127 + 120 * np.cos(y * seed), 127 + 120 * np.sin(x * y)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))

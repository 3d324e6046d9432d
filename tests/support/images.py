"""Synthetic images and their files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.data import jpeg_restarts


def encode_jpeg(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **{"quality": 90, **options})
    return out.getvalue()


def mark_jpeg(image: Image.Image, unit_width: int = 16, units: int = 1, **options: Any) -> bytes:
    """Return a JPEG with restart markers between at most so many MCUs, of this width in pixels, and their index."""
    units = jpeg_restarts.intervals(image.width, unit_width, units)
    marked = encode_jpeg(image, restart_marker_blocks=units, **options)
    return jpeg_restarts.with_index(marked, encode_jpeg(image, **options))


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


def smooth_noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return (height, width, 3) uint8 of colours that change by small steps, and over all values."""
    steps = rng.integers(-20, 21, (height, width, 3))
    return (np.cumsum(steps, 0) + np.cumsum(steps, 1)).astype(np.uint8)

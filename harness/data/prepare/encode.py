"""Source images as they are stored: their own bytes where loaders can decode them, else a JPEG."""

import io
import warnings
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from PIL import Image, UnidentifiedImageError

from harness.data import beton
from harness.data.manifest import Settings

FILTER = Image.Resampling.BICUBIC  # Pillow widens it when it shrinks an image, so that nothing aliases
SUBSAMPLING = "4:2:0"  # of colour: what most of ImageNet's own files have, and what decodes fastest

# Formats whose readers are Pillow's own or a bundled library's: none that starts another program, as EPS does.
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
_JPEG = ("JPEG", "MPO")  # a camera's MPO is a JPEG with more images after the first
_ORIENTATION = 0x0112
Image.init()  # Pillow knows a format by name only once its reader is loaded


@dataclass(frozen=True)
class EncodedImage:
    jpeg: bytes  # or pixels, as ``mode`` says
    height: int
    width: int
    kinds: tuple[str, ...]  # of harness.data.manifest.KINDS
    mode: int = beton.JPEG


class Unreadable(Exception):
    """No image could be made of a file. Its text says why."""


def encode_image(content: bytes, name: str, settings: Settings) -> EncodedImage:
    """Return what is stored of a file. Every pixel is decoded on the way, so that torn files are found here.

    Raises:
        Unreadable: the file cannot be decoded.
    """
    if not content:
        raise Unreadable("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd EXIF data and the like, to a terminal that shows progress
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                image.load()
                return _stored(content, image, name, settings)
    except UnidentifiedImageError:  # its text holds an address in memory
        raise Unreadable(f"not an image of a known format ({', '.join(_FORMATS)})") from None
    except Exception as e:  # a damaged file makes decoders raise anything
        raise Unreadable(str(e) or type(e).__name__) from None


def _stored(content: bytes, image: Image.Image, name: str, settings: Settings) -> EncodedImage:
    is_jpeg, mode = image.format in _JPEG, image.mode
    holds_by_kind = {
        "greyscale": mode in ("1", "L", "LA", "I", "F") or mode.startswith("I;"),
        "cmyk": mode == "CMYK",
        "transparent": image.has_transparency_data,
        "deep": mode.startswith("I"),
        "not_jpeg": not is_jpeg,
        "misnamed": not is_jpeg and PurePath(name).suffix.lower() in (".jpg", ".jpeg"),
        "oriented": _orientation(image) != 1,
    }
    kinds = tuple(kind for kind, holds in holds_by_kind.items() if holds)
    size = image.size if settings.max_side is None else _fitted(image.size, settings.max_side)
    if size == image.size and is_jpeg and mode in ("RGB", "L") and len(content) <= beton.PAGE:
        return EncodedImage(content, image.height, image.width, ("kept", *kinds))
    rgb = _rgb(image)
    if size != rgb.size:
        rgb = rgb.resize(size, FILTER)
    how = "converted" if size == image.size else "resized"
    if settings.lossless and not is_jpeg:
        pixels, how = rgb.tobytes(), "lossless" if how == "converted" else how
        if len(pixels) > beton.PAGE:
            raise Unreadable(f"too large: {len(pixels):,} bytes as pixels, {beton.PAGE:,} at most; without --lossless")
        return EncodedImage(pixels, rgb.height, rgb.width, (how, *kinds), beton.PIXELS)
    out = io.BytesIO()
    rgb.save(out, "JPEG", quality=settings.quality, subsampling=SUBSAMPLING)
    if out.tell() > beton.PAGE:
        raise Unreadable(f"too large: {out.tell():,} bytes as a JPEG of --quality {settings.quality}")
    return EncodedImage(out.getvalue(), rgb.height, rgb.width, (how, *kinds))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # some of ImageNet's images have damaged EXIF data, which harms no pixel
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    """Convert as torchvision's ImageFolder does, except for 16 bits of grey, which Pillow would clip to white."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image, np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def _fitted(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Return the size with its longer side at most ``max_side``, its shape kept."""
    longer = max(size)
    if longer <= max_side:
        return size
    width, height = (max(1, round(side * max_side / longer)) for side in size)
    return width, height

"""Source images as they are stored: their own bytes where loaders can decode them, else a JPEG."""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from PIL import Image, UnidentifiedImageError

from harness.data import beton, jpeg_restarts
from harness.data.manifest import Settings

FILTER = Image.Resampling.BICUBIC  # Pillow widens it when it shrinks an image, so that nothing aliases
SUBSAMPLING = "4:2:0"  # of colour: what decodes fastest
UNIT_WIDTH = 16  # of an MCU at that subsampling, in pixels
TRANSCODED_PIXELS = 128 * 128  # of the smallest image that is kept and worth restart markers

# Formats whose readers are Pillow's own or a bundled library's: none that starts another program, as EPS does.
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
_JPEG = ("JPEG", "MPO")  # a camera's MPO is a JPEG with more images after the first
_ORIENTATION = 0x0112
# EXIF's orientation -> what shows the image as viewers do
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAP_SIDES = (5, 6, 7, 8)  # of these orientations
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
    turn = _TURNS.get(_orientation(image))
    is_turned = turn is not None and settings.orientation == "apply"
    holds_by_kind = {
        "greyscale": mode in ("1", "L", "LA", "I", "F") or mode.startswith("I;"),
        "cmyk": mode == "CMYK",
        "transparent": image.has_transparency_data,
        "deep": mode.startswith("I"),
        "not_jpeg": not is_jpeg,
        "misnamed": not is_jpeg and PurePath(name).suffix.lower() in (".jpg", ".jpeg"),
        "oriented": turn is not None and not is_turned,
        "turned": is_turned,
    }
    kinds = tuple(kind for kind, holds in holds_by_kind.items() if holds)
    if turn is not None and is_turned:
        image = image.transpose(turn)
    size = image.size if settings.max_side is None else _fitted(image.size, settings.max_side)
    if size == image.size and is_jpeg and not is_turned and mode in ("RGB", "L") and len(content) <= beton.PAGE:
        jpeg = _marked(content, image, settings.restart)
        return EncodedImage(
            jpeg, image.height, image.width, ("kept", *kinds, *(("marked",) if jpeg != content else ()))
        )
    rgb = _rgb(image)
    if size != rgb.size:
        rgb = rgb.resize(size, FILTER)
    how = "converted" if size == image.size else "resized"
    if settings.lossless and not is_jpeg:
        pixels, how = rgb.tobytes(), "lossless" if how == "converted" else how
        if len(pixels) > beton.PAGE:
            raise Unreadable(f"too large: {len(pixels):,} bytes as pixels, {beton.PAGE:,} at most; without --lossless")
        return EncodedImage(pixels, rgb.height, rgb.width, (how, *kinds), beton.PIXELS)
    jpeg = _jpeg(rgb, settings.quality)
    if settings.restart:
        units = jpeg_restarts.intervals(rgb.width, UNIT_WIDTH, settings.restart)
        marked = jpeg_restarts.with_index(_jpeg(rgb, settings.quality, units), jpeg)
        if marked != jpeg and len(marked) <= beton.PAGE:
            jpeg, kinds = marked, (*kinds, "marked")
    if len(jpeg) > beton.PAGE:
        raise Unreadable(f"too large: {len(jpeg):,} bytes as a JPEG of --quality {settings.quality}")
    return EncodedImage(jpeg, rgb.height, rgb.width, (how, *kinds))


def _marked(content: bytes, image: Image.Image, restart: int) -> bytes:
    """Return a JPEG with restart markers and their index, where that pays, can be done and changes no pixel."""
    if restart == 0 or image.height * image.width < TRANSCODED_PIXELS or jpeg_restarts.has_index(content):
        return content
    from harness.data.prepare import restart_transcoder  # numba takes a while to load

    if not restart_transcoder.is_installed() or (marked := restart_transcoder.with_markers(content, restart)) is None:
        return content
    indexed = jpeg_restarts.with_index(marked, content)
    try:
        with Image.open(io.BytesIO(indexed), formats=_FORMATS) as again:
            is_same = np.array_equal(np.asarray(again), np.asarray(image))
    except Exception:  # as above
        return content
    return indexed if is_same and len(indexed) <= beton.PAGE else content


def _jpeg(rgb: Image.Image, quality: int, restart: int = 0) -> bytes:
    out = io.BytesIO()
    rgb.save(out, "JPEG", quality=quality, subsampling=SUBSAMPLING, restart_marker_blocks=restart)
    return out.getvalue()


def stated_orientation(path: Path) -> int:
    """Return a file's EXIF orientation, 1 to 8; 1 where there is none, or no image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                orientation = _orientation(image)
    except Exception:  # as above
        return 1
    return orientation if orientation in _TURNS else 1


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

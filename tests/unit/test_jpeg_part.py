"""The part of a JPEG that a crop needs: its pixels are those of the whole, and nothing is read beyond its bytes."""

import functools
import importlib
import importlib.util
import io
from itertools import product
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.data import beton, content
from harness.data.load.jpeg_part import cut
from tests.support.images import encode_jpeg, mark_jpeg, smooth_noise

UNIT_WIDTHS = {"4:4:4": 8, "4:2:2": 16, "4:2:0": 16, "grey": 8}  # of an MCU, in pixels
CASES_EACH = 625  # by two decoders: 5,000 in all


def stored(pixels: np.ndarray, subsampling: str, units: int = 1) -> tuple[bytes, bytes]:
    """Return an image's JPEG with markers and their index, and the plain one."""
    image = Image.fromarray(pixels[:, :, 0] if subsampling == "grey" else pixels)
    how = {} if subsampling == "grey" else {"subsampling": subsampling}
    return mark_jpeg(image, UNIT_WIDTHS[subsampling], units, **how), encode_jpeg(image, **how)


def by_pillow(jpeg: bytes, _height: int, _width: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def by_ffcv(jpeg: bytes, height: int, width: int) -> np.ndarray:
    pixels = np.empty((height, width, 3), np.uint8)
    assert not ffcv_decoder()._decode_jpeg(np.frombuffer(jpeg, np.uint8), pixels.reshape(-1), height, width)
    return pixels


@functools.cache
def ffcv_decoder() -> Any:
    return importlib.import_module("harness.data.load.ffcv_decoder")


DECODERS = [by_pillow, *([by_ffcv] if importlib.util.find_spec("ffcv") else [])]


@pytest.mark.parametrize("subsampling", UNIT_WIDTHS)
def test_a_part_has_the_pixels_of_the_whole(subsampling: str) -> None:
    rng = np.random.default_rng(len(subsampling) + 10 * ord(subsampling[-1]))
    smaller = 0
    for case in range(CASES_EACH):
        height, width = (int(side) for side in rng.integers(1, 70, 2))
        jpeg, plain = stored(smooth_noise(rng, height, width), subsampling, 1 + case % 3)
        top, left = int(rng.integers(height)), int(rng.integers(width))
        bottom, right = int(rng.integers(top, height)) + 1, int(rng.integers(left, width)) + 1
        if case % 4 == 0:  # at an edge
            top, left, bottom, right = rng.choice([(0, left, bottom, width), (top, 0, height, right)])
        out = bytearray(len(jpeg))
        n, y, x, part_height, part_width = cut(jpeg, height, width, top, left, bottom, right, out)
        assert 0 < n <= len(jpeg) and y <= top and x <= left
        for decode in DECODERS:
            whole, part = decode(jpeg, height, width), decode(bytes(out[:n]), part_height, part_width)
            assert part.shape == (part_height, part_width, 3)
            shown = part[top - y : bottom - y, left - x : right - x]
            assert np.array_equal(shown, whole[top:bottom, left:right]), (height, width, top, left, bottom, right)
            if case % 10 == 0:
                assert np.array_equal(whole, decode(plain, height, width)), "the markers change no pixel"
        smaller += n < len(jpeg) / 2
    assert smaller > CASES_EACH / 5


def is_cut(damaged: np.ndarray) -> bool:
    """Cut a JPEG of 70x85 pixels, and return whether that could be done. Numba checks no bounds, and a file may hold
    anything. Python does: both must agree."""
    guarded = np.full(len(damaged) + 64, 77, np.int8)
    found = cut(damaged, 70, 85, 20, 30, 50, 60, guarded[: len(damaged)])
    assert (guarded[len(damaged) :] == 77).all()
    expected = bytearray(len(damaged))
    assert found == getattr(cut, "py_func", cut)(bytes(damaged), 70, 85, 20, 30, 50, 60, expected)
    assert guarded[: found[0]].tobytes() == expected[: found[0]]
    return bool(found[0] > 0)


def test_no_byte_of_a_header_leads_out_of_the_bytes() -> None:
    jpeg = np.frombuffer(stored(smooth_noise(np.random.default_rng(0), 70, 85), "4:2:0")[0], np.uint8)
    start = jpeg.tobytes().index(b"\xff\xc0")
    refused = 0
    for at in range(start, start + 30):
        for value in (0, 1, 16, 127, 128, 241, 255):
            damaged = jpeg.copy()
            damaged[at] = value
            refused += not is_cut(damaged)
    assert 50 < refused < 30 * 7


def test_damage_is_never_followed_out_of_the_bytes() -> None:
    rng = np.random.default_rng(0)
    jpeg = np.frombuffer(stored(smooth_noise(rng, 70, 85), "4:2:0")[0], np.uint8)
    header = len(jpeg) - 2500
    refused = 0
    for case in range(400):
        damaged = jpeg.copy()
        for at in rng.integers(0, header if case % 2 else len(jpeg), 1 + case % 3):
            damaged[at] = rng.choice([0, 1, 254, 255, int(rng.integers(256))])
        damaged = damaged[: int(rng.integers(len(jpeg)))] if case % 5 == 0 else damaged
        refused += not is_cut(damaged)
    assert 50 < refused < 400


@pytest.mark.parametrize("kind", ["plain", "progressive", "another size"])
def test_what_has_no_such_index_is_decoded_whole(kind: str) -> None:
    pixels = smooth_noise(np.random.default_rng(0), 40, 50)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", progressive=kind == "progressive", restart_marker_blocks=1)
    jpeg = stored(pixels, "4:2:0")[0] if kind == "another size" else out.getvalue()
    height = 41 if kind == "another size" else 40
    assert cut(jpeg, height, 50, 10, 10, 20, 20, bytearray(len(jpeg))) == (0, 0, 0, height, 50)


def test_an_image_is_identified_by_its_pixels() -> None:
    marked, plain = stored(smooth_noise(np.random.default_rng(0), 40, 50), "4:2:0")
    digest = content.image_digest(plain, 40, 50, beton.JPEG)
    assert content.image_digest(memoryview(marked), 40, 50, beton.JPEG) == digest
    for at, change in product((15, 50, 90, len(marked) - 9), (1, 128)):
        damaged = bytearray(marked)
        damaged[at] ^= change
        try:
            assert content.image_digest(bytes(damaged), 40, 50, beton.JPEG) != digest
        except ValueError as error:
            assert "not those that its index was made of" in str(error)


def test_an_index_that_is_too_long_is_left_out() -> None:
    pixels = np.zeros((8 * 260, 8 * 260, 3), np.uint8)
    jpeg, plain = stored(pixels, "4:4:4")
    assert jpeg == plain

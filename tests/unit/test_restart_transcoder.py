"""Restart markers put into JPEGs of every plain kind: coefficients and pixels stay."""

import io

import numpy as np
import pytest
from PIL import Image

from harness.data import beton, content, jpeg_restarts
from harness.data.load.jpeg_part import cut
from harness.data.manifest import Settings
from harness.data.prepare.encode import encode_image
from harness.data.prepare.restart_transcoder import is_installed, with_markers
from tests.support.images import encode_jpeg, smooth_noise

pytestmark = pytest.mark.skipif(not is_installed(), reason="numba is not installed")

KINDS = {
    "4:4:4": {"subsampling": "4:4:4"},
    "4:2:2": {"subsampling": "4:2:2"},
    "4:2:0": {"subsampling": "4:2:0", "quality": 60},
    "its own codes": {"optimize": True, "quality": 75},
    "markers already": {"restart_marker_blocks": 3},
    "markers of rows": {"restart_marker_rows": 1},
    "fine": {"quality": 100, "subsampling": "4:4:4"},
    "coarse": {"quality": 5},
}


def decoded(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_the_markers_changes(kind: str, mode: str) -> None:
    options = {k: v for k, v in KINDS[kind].items() if mode == "RGB" or k != "subsampling"}
    rng = np.random.default_rng(len(kind))
    for case in range(12):
        height, width = (int(side) for side in rng.integers(1, 120, 2))
        image = Image.fromarray(smooth_noise(rng, height, width)).convert(mode)
        jpeg = encode_jpeg(image, **options)
        marked = with_markers(jpeg, 1 + case % 2)
        assert marked is not None
        assert np.array_equal(decoded(marked), decoded(jpeg)), (height, width)
        again = with_markers(marked, 1 + case % 2)
        assert again is not None and again[-len(marked) // 2 :] == marked[-len(marked) // 2 :], "as it was"
        indexed = jpeg_restarts.with_index(marked, jpeg)
        n, *_ = cut(indexed, height, width, 0, 0, height, width, bytearray(len(indexed)))
        assert n > 0 and content.image_digest(indexed, height, width, beton.JPEG) == content.image_digest(
            jpeg, height, width, beton.JPEG
        )


def test_what_is_not_plain_is_left() -> None:
    image = Image.fromarray(smooth_noise(np.random.default_rng(0), 40, 50))
    jpeg = encode_jpeg(image)
    others = [
        encode_jpeg(image, progressive=True),
        encode_jpeg(image.convert("CMYK")),
        jpeg[:-40],
        jpeg[:200],
        b"\xff\xd8",
    ]
    assert [with_markers(other, 1) for other in others] == [None] * len(others)


def test_damage_ends_in_an_image_or_in_none() -> None:
    """Numba checks no bounds: what is read and written must stay inside whatever a file holds."""
    rng = np.random.default_rng(1)
    jpeg = encode_jpeg(Image.fromarray(smooth_noise(rng, 60, 70)))
    left = 0
    for case in range(300):
        damaged = bytearray(jpeg)
        for at in rng.integers(2, 650 if case % 2 else len(jpeg), 1 + case % 3):
            damaged[at] = int(rng.choice([0, 1, 254, 255, int(rng.integers(256))]))
        left += with_markers(bytes(damaged), 1) is None
    assert 50 < left < 300


@pytest.mark.parametrize(
    ("side", "restart", "kinds"), [(130, 1, {"kept", "marked"}), (130, 0, {"kept"}), (100, 1, {"kept"})]
)
def test_a_kept_image_has_its_coefficients(side: int, restart: int, kinds: set[str]) -> None:
    """Small ones are not worth it."""
    jpeg = encode_jpeg(Image.fromarray(smooth_noise(np.random.default_rng(0), side, side)))
    stored = encode_image(jpeg, "a.JPEG", Settings(max_side=400, quality=90, restart=restart))
    assert set(stored.kinds) == kinds and (stored.jpeg == jpeg) == ("marked" not in kinds)
    assert np.array_equal(decoded(stored.jpeg), decoded(jpeg))

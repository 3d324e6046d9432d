"""FFCV's file format: our reader and writer against FFCV's own, and damaged files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.data import beton
from harness.data.load.arrays import WrongData
from tests.support.images import encode_jpeg, picture


def pixels(jpeg: Any) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(bytes(jpeg))).convert("RGB"))


def write(path: Path, samples: list[Any], capacity: int | None = None) -> Path:
    with path.open("wb") as file:
        writer = beton.Writer(file, len(samples) if capacity is None else capacity)
        for sample in samples:
            writer.add(*sample)
        writer.finish()
    return path


SIZES = [(20, 30), (33, 17), (8, 8), (64, 48), (1, 1), (25, 25)]
# What a JPEG of three components or one can be: FFCV decodes with libjpeg-turbo, as Pillow does.
VARIANTS: list[dict[str, Any]] = [
    {"subsampling": "4:2:0"},
    {"subsampling": "4:4:4"},
    {"subsampling": "4:2:2", "progressive": True},
    {"subsampling": "4:2:0", "restart_marker_rows": 1},
    {"keep_rgb": True},
    {"grey": True},
]


def variant(height: int, width: int, i: int) -> bytes:
    image, options = picture(height, width, i), VARIANTS[i]
    return encode_jpeg(image.convert("L")) if "grey" in options else encode_jpeg(image, **options)


@pytest.fixture
def samples() -> list[tuple[int, int, int, bytes]]:
    return [(i * 3 - 1, h, w, variant(h, w, i)) for i, (h, w) in enumerate(SIZES)]


def test_reading_returns_what_was_written(tmp_path: Path, samples: list[tuple[int, int, int, bytes]]) -> None:
    file = beton.read_beton(write(tmp_path / "a.beton", samples, capacity=100))
    assert len(file) == len(samples) and file.indices.tolist() == list(range(len(samples)))
    held = zip(file.labels.tolist(), file.heights.tolist(), file.widths.tolist(), strict=True)
    assert list(held) == [sample[:3] for sample in samples]
    assert [bytes(file.jpeg(i)) for i in range(len(file))] == [sample[3] for sample in samples]
    assert (file.labels.dtype, file.heights.dtype) == (np.int64, np.int32)


def test_a_file_of_nothing(tmp_path: Path) -> None:
    assert len(beton.read_beton(write(tmp_path / "a.beton", []))) == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, beton.PAGE), max_size=12), st.integers(0, 10_000))
def test_no_sample_crosses_a_page(sizes: list[int], spare: int) -> None:
    writer = beton.Writer(io.BytesIO(), len(sizes) + spare)
    end = writer.end
    for size in sizes:
        start = writer.place(0, 1, 1, size)
        assert start >= end and (size == 0 or start // beton.PAGE == (start + size - 1) // beton.PAGE)
        end = start + size


def test_a_page_is_the_largest_sample() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        beton.Writer(io.BytesIO(), 1).place(0, 1, 1, beton.PAGE + 1)


def test_a_writer_resumes_where_another_stopped(tmp_path: Path, samples: list[tuple[int, int, int, bytes]]) -> None:
    whole = write(tmp_path / "whole.beton", samples).read_bytes()
    with (tmp_path / "torn.beton").open("wb") as file:
        writer = beton.Writer(file, len(samples))
        for sample in samples[:4]:
            writer.add(*sample)
    with (tmp_path / "torn.beton").open("r+b") as file:
        writer = beton.Writer(file, len(samples))
        for label, height, width, jpeg in samples[:3]:
            writer.place(label, height, width, len(jpeg))
        file.truncate(writer.end)
        for sample in samples[3:]:
            writer.add(*sample)
        writer.finish()
    assert (tmp_path / "torn.beton").read_bytes() == whole


def test_ffcv_reads_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFCV's own loader and decoders read our labels and pixels, in both ways in which it reads pages."""
    pytest.importorskip("ffcv")
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder
    from ffcv.libffcv import imdecode
    from ffcv.loader import Loader, OrderOption
    from ffcv.pipeline.compiler import Compiler
    from ffcv.reader import Reader

    monkeypatch.setattr(Compiler, "is_enabled", False)  # compiling them takes seconds
    h, w = 33, 50
    samples = [(i * 3 - 1, h, w, variant(h, w, i)) for i in range(len(VARIANTS))]
    stored = picture(h, w, 9)
    path = write(tmp_path / "a.beton", [*samples, (8, h, w, stored.tobytes(), beton.PIXELS)], capacity=1000)
    reader = Reader(str(path))
    assert reader.field_names == ["image", "label", "index"] and reader.num_samples == 7
    pipelines = {"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()], "index": [IntDecoder()]}
    for cached in (True, False):
        loader = Loader(str(path), 7, 1, os_cache=cached, order=OrderOption.SEQUENTIAL, pipelines=pipelines)
        ((images, labels, indices),) = loader
        assert labels[:, 0].tolist() == [*(sample[0] for sample in samples), 8]
        assert indices[:, 0].tolist() == [*range(7)]
        np.testing.assert_array_equal(images[6], np.asarray(stored))
        for i, image in enumerate(images[:6]):
            expected = np.zeros((h, w, 3), np.uint8)
            imdecode(np.frombuffer(samples[i][3], np.uint8), expected, h, w, h, w)
            np.testing.assert_array_equal(image, expected, err_msg=str(VARIANTS[i]))
            # FFCV takes libjpeg-turbo's fast inverse transform, Pillow the exact one.
            assert np.abs(expected.astype(int) - pixels(samples[i][3])).max() <= 6, VARIANTS[i]


def test_ours_reads_ffcvs(tmp_path: Path) -> None:
    pytest.importorskip("ffcv")
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    images = [np.asarray(picture(20 + i, 30, i % 3)) for i in range(25)]
    fields = {
        "image": RGBImageField("smart", smart_threshold=3000, jpeg_quality=95),
        "label": IntField(),
        "index": IntField(),
    }
    writer = DatasetWriter(str(tmp_path / "a.beton"), fields, num_workers=2)
    writer.from_indexed_dataset([(image, i % 4, 100 + i) for i, image in enumerate(images)], chunksize=3)
    file = beton.read_beton(tmp_path / "a.beton")
    assert file.labels.tolist() == [i % 4 for i in range(25)] and file.indices.tolist() == list(range(100, 125))
    assert 0 < np.count_nonzero(file.are_pixels) < 25
    for i, image in enumerate(images):
        if file.are_pixels[i]:
            np.testing.assert_array_equal(file.pixels(i), image)
            continue
        decoded = pixels(file.jpeg(i))
        assert decoded.shape == image.shape == (file.heights[i], file.widths[i], 3)
        assert np.abs(decoded.astype(int) - image).mean() < 15


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_is_reported_or_read_within_its_bounds(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.beton"
    write(path, [(i, h, w, encode_jpeg(picture(h, w))) for i, (h, w) in enumerate(SIZES[:3])])
    size, table = path.stat().st_size, 2 * beton.PAGE
    with path.open("r+b") as file:
        for place in data.draw(st.lists(st.one_of(st.integers(0, 3300), st.integers(table, size - 1)), max_size=4)):
            file.seek(place)
            file.write(bytes([data.draw(st.integers(0, 255))]))
        file.truncate(data.draw(st.sampled_from([size, size - 1, table, 3300, 20, 0])))
    try:
        damaged = beton.read_beton(path)
    except WrongData as e:
        assert str(e).startswith(f"{path}: ")
    else:
        assert all(0 < len(damaged.jpeg(i)) <= beton.PAGE for i in range(len(damaged)))


def test_pixels_of_another_size_are_refused(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "a.beton", [(0, 8, 8, encode_jpeg(picture(8, 8)))]).read_bytes())
    content[24 + 3 * 1041] = 1  # the first sample's mode
    (tmp_path / "a.beton").write_bytes(content)
    with pytest.raises(WrongData, match="a.beton: holds images that are neither JPEGs nor pixels"):
        beton.read_beton(tmp_path / "a.beton")

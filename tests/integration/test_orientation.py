"""EXIF orientations: applied to images with objects and to their boxes, and a choice for images with a class."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from harness.data import beton
from harness.data.coco_manifest import CocoManifest
from harness.data.coco_parts import Parts
from harness.data.manifest import Manifest, Settings
from harness.data.prepare import encode
from harness.reporting.figures.detections import scenes
from harness.spec import datasets
from harness.spec.science import DatasetChoice
from tests.support.cli import CommandResult, run_command
from tests.support.images import picture, save_image
from tests.support.synthetic_coco import write_instances

HEIGHT, WIDTH = 48, 80
BOX = [8, 16, 24, 16]  # x, y, width, height: of blocks of 8 pixels, which JPEG keeps apart
SWAPPING = (5, 6, 7, 8)
# EXIF's orientation -> the pixels in the file, of those that are shown
FILED = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, -1),
}


def filed_image(orientation: int) -> tuple[Image.Image, Image.Exif]:
    """Return a black image with a white box that is shown at BOX."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    x, y, width, height = BOX
    pixels[y : y + height, x : x + width] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    return Image.fromarray(np.ascontiguousarray(FILED[orientation](pixels))), exif


def box_in(image: Image.Image) -> list[int]:
    rows, columns = np.nonzero(np.asarray(image.convert("L")) > 127)
    return [int(v) for v in (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)]


def prepare(dataset: str, source: Path, out: Path, *options: object) -> CommandResult:
    return run_command("prepare", dataset, "--source", source, "--out", out, "--workers", 1, *options)


def test_images_and_boxes_are_turned_together(tmp_path: Path) -> None:
    """Annotations may be of the images as they are shown, or, with the width and height in the file, as filed."""
    images, annotations = [], []
    for i, (orientation, is_filed) in enumerate([(k, False) for k in FILED] + [(k, True) for k in SWAPPING]):
        image, exif = filed_image(orientation)
        kind = "PNG" if orientation == 8 else "JPEG"
        save_image(tmp_path / f"source/images/{i}.{kind.lower()}", image, kind, exif=exif)
        width, height = image.size if is_filed else (WIDTH, HEIGHT)
        images.append({"id": i, "file_name": f"{i}.{kind.lower()}", "width": width, "height": height})
        box = box_in(image) if is_filed else BOX
        annotations.append({"image_id": i, "category_id": 3, "bbox": box})
    write_instances(tmp_path / "source/annotations/instances_train.json", images, annotations)
    result = prepare("coco", tmp_path / "source", tmp_path / "out")
    assert result.code == 0 and "11 turned" in result.out and "4 boxes turned" in result.out, result

    manifest = CocoManifest.read(tmp_path / "out")
    assert manifest.test.counts == {"kept": 1, "converted": 11, "turned": 11, "not_jpeg": 2, "ignored": 0}
    assert manifest.test.remarks == {"boxes_turned": 4} and manifest.settings.orientation == "apply"
    info = datasets.prepared_dataset("coco", manifest.version, 2, 12, 12, 0)
    parts = Parts(DatasetChoice.of_info(info), tmp_path / "out")
    shown, truth = scenes(parts, 12)
    assert len(shown) == 12
    for i, pixels in shown.items():
        (box,) = truth[i]
        assert pixels.shape == (HEIGHT, WIDTH, 3) and [box.x, box.y, box.width, box.height] == BOX
        assert box_in(Image.fromarray(pixels)) == BOX
    file = beton.read_beton(tmp_path / "out/train.beton")
    assert not any(Image.open(io.BytesIO(file.jpeg(i).tobytes())).getexif().get(0x0112, 1) - 1 for i in range(12))

    content = json.loads((tmp_path / "out/manifest.json").read_text())  # as it was made before they were applied
    del content["settings"]["orientation"]
    content["train"]["counts"] = content["test"]["counts"] = {"kept": 12, "oriented": 11}
    (tmp_path / "out/manifest.json").write_text(json.dumps(content))
    error = prepare("coco", tmp_path / "source", tmp_path / "out").error
    assert "holds a dataset that was prepared differently: orientation ignore, not apply;" in error
    content["train"]["counts"] = content["test"]["counts"] = {"kept": 12}
    (tmp_path / "out/manifest.json").write_text(json.dumps(content))
    assert "already prepared" in prepare("coco", tmp_path / "source", tmp_path / "out").err


def test_a_turned_image_of_another_size_is_refused(tmp_path: Path) -> None:
    image, exif = filed_image(6)
    save_image(tmp_path / "source/images/0.jpg", image, exif=exif)
    facts = {"id": 0, "file_name": "0.jpg", "width": WIDTH + 1, "height": HEIGHT}
    annotation = {"image_id": 0, "category_id": 3, "bbox": BOX}
    write_instances(tmp_path / "source/annotations/instances_train.json", [facts], [annotation])
    error = prepare("coco", tmp_path / "source", tmp_path / "out").error
    assert "1 image is of another width x height than stated: 0.jpg is 80 x 48, not 81 x 48" in error
    error = prepare("coco", tmp_path / "source", tmp_path / "out", "--orientation", "apply").error
    assert error == "--orientation belongs to imagenet and imagefolder, not to coco"


@pytest.mark.parametrize("orientation", FILED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_choice_for_images_with_a_class(tmp_path: Path, orientation: int, kind: str) -> None:
    image, exif = filed_image(orientation)
    save_image(path := tmp_path / f"0.{kind.lower()}", image, kind, exif=exif)
    applied = encode.encode_image(path.read_bytes(), path.name, Settings(max_side=40, quality=90, orientation="apply"))
    stored = Image.open(io.BytesIO(applied.jpeg))
    assert (applied.width, applied.height) == stored.size == (40, 24) and box_in(stored) == [v // 2 for v in BOX]
    assert ("turned" in applied.kinds) == (orientation != 1 and kind != "TIFF"), "Pillow turns TIFFs by itself"
    ignored = encode.encode_image(path.read_bytes(), path.name, Settings(max_side=400, quality=90))
    assert (ignored.width, ignored.height) == (image.size if kind != "TIFF" else (WIDTH, HEIGHT))
    if kind == "JPEG":
        assert ignored.jpeg == path.read_bytes()
        assert box_in(ImageOps.exif_transpose(Image.open(path))) == BOX


def test_the_choice_is_in_the_manifest_and_said(tmp_path: Path) -> None:
    save_image(tmp_path / "tree/val/a/0.jpg", picture(20, 30), exif=filed_image(6)[1])
    by_default = prepare("imagefolder", tmp_path / "tree", tmp_path / "ignored")
    assert "oriented: an EXIF orientation, not applied, as in torchvision's ImageFolder; `--orientation apply`" in (
        by_default.out
    )
    assert "orientation" not in json.loads((tmp_path / "ignored/manifest.json").read_text())["settings"]
    applied = prepare("imagefolder", tmp_path / "tree", tmp_path / "applied", "--orientation", "apply")
    assert applied.code == 0 and "1 turned" in applied.out
    manifests = [Manifest.read(tmp_path / name) for name in ("ignored", "applied")]
    assert [m.settings.orientation for m in manifests] == ["ignore", "apply"]
    assert manifests[0].version != manifests[1].version
    error = prepare("imagefolder", tmp_path / "tree", tmp_path / "applied").error
    assert "prepared differently: orientation apply, not ignore; choose another --out" in error

"""Manifests of prepared datasets, valid and damaged."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.data import manifest
from harness.data.coco_manifest import CocoManifest
from harness.data.manifest import Manifest, timm_order
from harness.errors import UserError
from harness.planning import locate
from harness.spec.schema import Dataset
from harness.store.store import Store
from tests.support.manifests import VALUE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "val.beton").write_bytes(b"abc")
    (tmp_path / "manifest.json").write_text(json.dumps(VALUE))
    return tmp_path


def test_reading_returns_what_was_written(folder: Path) -> None:
    annotations = Manifest.read(folder)
    assert (annotations.classes, annotations.train, annotations.test.images) == (("ant", "bee"), None, 2)
    annotations.write(folder)
    assert Manifest.read(folder) == annotations


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "format": ({"format": 2}, "manifest.json: format 2, this harness reads format 1"),
    "version": ({"version": "../x"}, "manifest.json: damaged: version: String should match pattern"),
    "key": ({"x": 1}, "manifest.json: damaged: x: Extra inputs are not permitted"),
    "file elsewhere": ({"test": {**VALUE["test"], "file": "../val.beton"}}, "damaged: test.file: Input should be"),
    "file missing": ({"train": {**VALUE["test"], "file": "train.beton"}}, "train.beton: is missing; prepare the data"),
    "file torn": ({"test": {**VALUE["test"], "bytes": 4}}, "val.beton: has 3 bytes, manifest.json states 4; prepare"),
}


@pytest.mark.parametrize("change, message", CHANGES.values(), ids=CHANGES)
def test_damage(folder: Path, change: dict[str, Any], message: str) -> None:
    (folder / "manifest.json").write_text(json.dumps({**VALUE, **change}))
    with pytest.raises(UserError) as e:
        Manifest.read(folder)
    assert message in str(e.value) and str(e.value).startswith(str(folder))


@pytest.mark.parametrize("content", [b"", b"[1, 2", b"\xff", b"[1]"])
def test_other_content(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match="manifest.json: damaged: "):
        Manifest.read(folder)


@pytest.mark.parametrize(
    ("classes", "differ"),
    [
        (("ant", "bee", "cat"), ""),
        (("1", "10", "2"), "class 1 is '10'"),
        (("1", "2", "10"), ""),  # stated
        (("Wolf", "ant"), "class 0 is 'Wolf'"),
        (("n01", "n10"), ""),
        (("a", "x²"), ""),
    ],
)
def test_an_order_that_timm_does_not_have_is_told(folder: Path, classes: tuple[str, ...], differ: str) -> None:
    manifest = Manifest.read(folder).model_copy(update={"dataset": "imagefolder", "classes": classes})
    assert [text.partition(",")[0] for text in manifest.warnings()] == ([differ] if differ else [])
    assert manifest.model_copy(update={"dataset": "imagenet"}).warnings() == []


def test_timms_order_of_classes(tmp_path: Path) -> None:
    reader = pytest.importorskip("timm.data.readers.reader_image_folder")
    names = ["1", "10", "2", "Wolf", "ant", "b10", "b9", "B9a", "c"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").touch()
    _, numbers = reader.find_images_and_targets(str(tmp_path))
    assert sorted(numbers, key=numbers.__getitem__) == timm_order(names)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="holds no prepared dataset .*make one with: python -m harness.prepare imagenet"
    ):
        Manifest.read(tmp_path)


def test_planning_can_read_it_quickly() -> None:
    heavy = (
        "import sys, harness.data.manifest; print([m for m in ('torch', 'numpy', 'PIL', 'ffcv') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", heavy], text=True) == "[]\n"


PART: dict[str, Any] = {
    "file": "val.beton", "images": 2, "bytes": 3, "counts": {"kept": 2}, "annotations": "val.safetensors",
    "annotation_bytes": 2, "trained_on": 1, "objects": {"objects": 4},
}  # fmt: skip
DETECTION = {k: v for k, v in VALUE.items() if k != "classes"} | {
    "dataset": "coco", "categories": [{"id": 3, "name": "cat"}], "test": PART, "version": "fedcba9876543210",
    "settings": {"max_side": None, "quality": 90},
}  # fmt: skip


@pytest.fixture
def of_coco(folder: Path) -> Path:
    (folder / "val.safetensors").write_bytes(b"ab")
    (folder / "manifest.json").write_text(json.dumps(DETECTION))
    return folder


@pytest.mark.parametrize(
    "remarks, text", [({}, ""), ({"boxes_as_shares": 2}, ""), ({"boxes_outside": 3}, "3 of 4 boxes ")]
)
def test_implausible_boxes_are_warned_of_if_they_are_most(of_coco: Path, remarks: dict[str, int], text: str) -> None:
    """A manifest without remarks is what it was before there were any."""
    (of_coco / "manifest.json").write_text(json.dumps({**DETECTION, "test": {**PART, "remarks": remarks}}))
    read_back = CocoManifest.read(of_coco)
    assert [warning.split("reach")[0] for warning in read_back.warnings()] == ([f"test: {text}"] if text else [])
    assert ("noticed: 3 boxes outside" in [tally.line for tally in read_back.test.tallies()]) == bool(text)
    read_back.write(of_coco)
    written = json.loads((of_coco / "manifest.json").read_text())
    assert written["settings"] == DETECTION["settings"] and written["test"] == PART | (
        {"remarks": remarks} if remarks else {}
    )


def test_of_objects(of_coco: Path) -> None:
    read_back = manifest.read_manifest(of_coco, "imagenet")
    assert isinstance(read_back, CocoManifest) and read_back == CocoManifest.read(of_coco)
    assert (read_back.class_count, read_back.evaluated_on, read_back.categories[0].id) == (1, "test", 3)
    read_back.write(of_coco)
    assert CocoManifest.read(of_coco) == read_back
    (of_coco / "manifest.json").write_text(json.dumps({**DETECTION, "train": PART}))
    assert CocoManifest.read(of_coco).evaluated_on == "train"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"annotations": "../val.safetensors"}, "damaged: test.annotations: Input should be"),
        ({"annotation_bytes": 3}, "val.safetensors: has 2 bytes, manifest.json states 3; prepare"),
        ({"annotations": "train.safetensors"}, "train.safetensors: is missing; prepare the data"),
        ({"per_class_min": 1}, "damaged: test.per_class_min: Extra inputs"),
    ],
)
def test_damage_of_objects(of_coco: Path, change: dict[str, Any], message: str) -> None:
    (of_coco / "manifest.json").write_text(json.dumps({**DETECTION, "test": {**PART, **change}}))
    with pytest.raises(UserError) as e:
        manifest.read_manifest(of_coco, "coco")
    assert message in str(e.value) and str(e.value).startswith(str(of_coco))


def test_folders_of_both_kinds_lie_side_by_side(of_coco: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("root")
    of_coco.rename(root / "a")
    (root / "b").mkdir()
    (root / "b/val.beton").write_bytes(b"abc")
    (root / "b/manifest.json").write_text(json.dumps(VALUE))
    (root / "0").mkdir()
    (root / "0/manifest.json").write_text("{")  # damaged, and no part of what is looked for
    assert locate.prepared_folder("imagenet", VALUE["version"], root) == root / "b"
    assert locate.prepared_folder("coco", DETECTION["version"], root) == root / "a"
    with pytest.raises(UserError, match=r"no folder in \S+ holds coco with content 77: name the folder"):
        locate.prepared_folder("coco", "77", root)
    assert locate.dataset_info(Dataset(name="imagefolder", folder="b"), root, Store(root)).label == ""
    (root / "b/manifest.json").write_text(json.dumps({**VALUE, "name": "flowers"}))
    assert locate.dataset_info(Dataset(name="imagefolder", folder="b"), root, Store(root)).label == "flowers"
    with pytest.raises(UserError, match="a: was prepared as 'coco'; expected 'imagefolder'"):
        locate.dataset_info(Dataset(name="imagefolder", folder="a"), root, Store(root))

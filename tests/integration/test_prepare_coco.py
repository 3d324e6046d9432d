"""`prepare coco` through its command line: COCO's files, wrong files, and resuming after interruptions."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.data import beton
from harness.data.annotations import Annotations
from harness.data.coco_manifest import CocoManifest
from harness.data.manifest import Manifest, Settings
from harness.data.prepare import coco, coco_layout
from harness.data.prepare import part as prepare_part
from harness.errors import UserError
from tests.support.bench import until
from tests.support.cli import REPO, CommandResult, process, run_command
from tests.support.images import picture, save_image
from tests.support.synthetic_coco import DETECTORS, write_instances

ONE = ("train.beton", "train.safetensors", "manifest.json")
BOTH = (*ONE, "val.beton", "val.safetensors")


def prepare(source: Path, out: Path, *options: object) -> CommandResult:
    return run_command("prepare", "coco", "--source", source, "--out", out, "--workers", 1, *options)


def prepared(source: Path, out: Path, *options: object) -> CocoManifest:
    result = prepare(source, out, *options)
    assert result.code == 0, result.err
    return CocoManifest.read(out)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def make_part(source: Path, name: str, many: int, first_id: int) -> None:
    """Make images of two shapes, each with an object except the first, and a crowd in the second."""
    images, annotations = [], []
    for i in reversed(range(many)):
        height, width = (40, 60) if i % 3 else (60, 40)
        save_image(source / name / f"{i:04}.jpg", picture(height, width, first_id + i))
        images.append({"id": first_id + i, "file_name": f"{i:04}.jpg", "height": height, "width": width})
        if i:
            box = {"image_id": first_id + i, "category_id": 1 + i % 2 * 2, "bbox": [i % 5, 3, 20.5, 30], "area": 600}
            annotations += [box] + ([{**box, "iscrowd": 1}] if i == 1 else [])
    write_instances(source / f"annotations/instances_{name}.json", images, annotations)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    make_part(tmp_path / "coco", "train2017", 8, 100)
    make_part(tmp_path / "coco", "val2017", 3, 900)
    return tmp_path / "coco"


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_coco128(tmp_path: Path) -> None:
    """Images keep their bytes and annotations their numbers. A second call has nothing to do."""
    data = Path(os.environ.get("KD_DATA", "nowhere")) / "coco128"
    if not data.is_dir():
        pytest.skip("KD_DATA has no coco128")
    args = ("-m", "harness.prepare", "coco", "--source", data, "--out", "out")
    result = process(*args, "--json", cwd=tmp_path)
    assert result.code == 0, result.err
    summary, manifest = json.loads(result.out), CocoManifest.read(tmp_path / "out")
    assert (summary["version"], summary["classes"], summary["evaluated_on"]) == (manifest.version, 80, "train")
    assert manifest.train == manifest.test and manifest.evaluated_on == "train"
    assert (manifest.test.images, manifest.test.trained_on) == (128, 126)
    assert manifest.test.objects == {"objects": 929, "crowds": 10, "degenerate": 0}
    assert manifest.test.counts == {"kept": 128, "greyscale": 1, "ignored": 0}

    source_file = json.loads((data / "annotations/instances_train2017.json").read_text())
    file = beton.read_beton(tmp_path / "out/train.beton")
    names = {image["id"]: data / "images/train2017" / image["file_name"] for image in source_file["images"]}
    assert file.labels.tolist() == sorted(names)
    assert all(bytes(file.jpeg(i)) == names[number].read_bytes() for i, number in enumerate(file.labels.tolist()))
    annotations = Annotations.load(tmp_path / "out/train.safetensors", 80)
    truth = annotations.as_coco(file.heights, file.widths, manifest.categories)
    keys = ("image_id", "category_id", "bbox", "area", "iscrowd")
    expected = sorted(source_file["annotations"], key=lambda a: a["image_id"])
    assert [[a[k] for k in keys] for a in truth["annotations"]] == [[a[k] for k in keys] for a in expected]
    image_keys = ("id", "height", "width")
    assert truth["images"] == [
        {k: i[k] for k in image_keys} for i in sorted(source_file["images"], key=lambda i: i["id"])
    ]
    assert [(c.id, c.name) for c in manifest.categories] == [(c["id"], c["name"]) for c in source_file["categories"]]

    before = contents(tmp_path / "out")
    result = process(*args, cwd=tmp_path)
    assert (result.code, result.err) == (0, "out: already prepared, nothing to do\n")
    assert "the training images are evaluated on" in result.out and "929 objects, 10 crowds; 126" in result.out
    assert contents(tmp_path / "out") == before


def test_training_and_validation(source: Path, tmp_path: Path) -> None:
    manifest = prepared(source, tmp_path / "out")
    assert contents(tmp_path / "out").keys() == set(BOTH) and manifest.evaluated_on == "test"
    assert manifest.train and (manifest.train.images, manifest.train.trained_on, manifest.test.images) == (8, 7, 3)
    assert manifest.train.objects == {"objects": 7, "crowds": 1, "degenerate": 0}
    assert "orientation" not in (tmp_path / "out/manifest.json").read_text(), "other versions cannot read it"
    file = beton.read_beton(tmp_path / "out/train.beton")
    assert file.labels.tolist() == list(range(100, 108)) and file.heights.tolist() == [60, 40, 40, 60, 40, 40, 60, 40]
    held = Annotations.load(tmp_path / "out/train.safetensors", 2)
    assert held.labels.tolist() == [2, 2, 1, 2, 1, 2, 1, 2] and held.crowds.tolist() == [False, True, *[False] * 6]


def test_evaluation_only(source: Path, tmp_path: Path) -> None:
    (source / "annotations/instances_train2017.json").unlink()
    manifest = prepared(source, tmp_path / "out")
    assert manifest.train is None and manifest.test.file == "val.beton" and manifest.evaluated_on == "test"


def test_nothing_to_train_on(source: Path, tmp_path: Path) -> None:
    """It is said when the set is prepared, with the reason, and when a sweep is planned; with no object at all, the set
    is of no use."""
    train, val = (source / f"annotations/instances_{name}2017.json" for name in ("train", "val"))
    change(train, lambda c: [a.update(iscrowd="1") for a in c["annotations"][:-1]])
    change(train, lambda c: c["annotations"][-1].update(bbox=[700, 3, 5, 5], iscrowd=0))
    reason = "the annotations are 7 crowds (`iscrowd: 1`) and 1 degenerate boxes (no width or height within the image)"
    result = prepare(source, tmp_path / "data/coco")
    assert result.code == 0 and f"warning: train: nothing to train on: {reason}\n" in result.err
    again = prepare(source, tmp_path / "data/coco")
    assert "already prepared" in again.err and f"warning: train: nothing to train on: {reason}\n" in again.err
    (tmp_path / "x.yaml").write_text(json.dumps(DETECTORS))
    planned = run_command("sweep", tmp_path / "x.yaml", "--plan", "--data", tmp_path / "data", "--results", tmp_path)
    assert f"coco was prepared with nothing to train on ({reason}): it is for evaluation only" in planned.error
    change(val, lambda c: c.pop("annotations"))
    error = prepare(source, tmp_path / "out").error
    assert f"{train}: no object to train on or to evaluate with: {reason}; {val}: no object to" in error
    assert error.endswith(": there are no annotations") and not (tmp_path / "out").exists()


def as_it_is(source: Path) -> tuple[object, ...]:
    return ()


def in_images(source: Path) -> tuple[object, ...]:
    (source / "images").mkdir()
    for name in ("train2017", "val2017"):
        (source / name).rename(source / "images" / name)
    return ()


def folders_in_names(source: Path) -> tuple[object, ...]:
    for name in ("train2017", "val2017"):
        (source / name).rename(source / name[:-4])
        path = source / f"annotations/instances_{name}.json"
        change(path, lambda c: [i.update(file_name=f"{name[:-4]}/{i['file_name']}") for i in c["images"]])  # noqa: B023
    return ()


def beside_the_images(source: Path) -> tuple[object, ...]:
    for name in ("train2017", "val2017"):
        (source / f"annotations/instances_{name}.json").rename(source / name / "_annotations.coco.json")
    return "--train", "train2017/_annotations.coco.json", "--val", source / "val2017/_annotations.coco.json"


def roboflow(source: Path) -> tuple[object, ...]:
    beside_the_images(source)
    (source / "train2017").rename(source / "train")
    (source / "val2017").rename(source / "valid")
    (source / "annotations").rmdir()
    return ()


def on_windows(source: Path) -> tuple[object, ...]:
    for name in ("train2017", "val2017"):
        path = source / f"annotations/instances_{name}.json"
        change(path, lambda c: [i.update(file_name=f"D:\\data\\{name}\\{i['file_name']}") for i in c["images"]])  # noqa: B023
        path.with_suffix(".json.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return ()


@pytest.mark.parametrize("lay_out", [as_it_is, in_images, folders_in_names, beside_the_images])
def test_layouts(source: Path, tmp_path: Path, lay_out: Callable[[Path], tuple[object, ...]]) -> None:
    """All layouts give the same data."""
    version = prepared(source, tmp_path / "0").version
    assert prepared(source, tmp_path / "1", *lay_out(source)).version == version


def cvat(source: Path) -> tuple[object, ...]:
    for name, subset in (("train2017", "Train"), ("val2017", "Validation")):
        (source / name).rename(source / subset)
        (source / f"annotations/instances_{name}.json").rename(source / f"annotations/instances_{subset}.json")
    return ()


def as_addresses(source: Path) -> tuple[object, ...]:
    for name in ("train2017", "val2017"):
        (source / name).rename(source / f"{name[:-4]} images")
        path = source / f"annotations/instances_{name}.json"
        change(path, lambda c: [i.update(file_name=f"{name[:-4]}%20images/{i['file_name']}") for i in c["images"]])  # noqa: B023
    return ()


@pytest.mark.parametrize("lay_out", [roboflow, on_windows, cvat, as_addresses])
def test_layouts_of_other_tools(source: Path, lay_out: Callable[[Path], tuple[object, ...]]) -> None:
    expected = coco_layout.find_parts(source)
    lay_out(source)
    for name, part in coco_layout.find_parts(source).items():
        files = part.images.files, expected[name].images.files
        assert [Path(file.name).name for file in files[0]] == [Path(file.name).name for file in files[1]]
        assert part.instances.annotations.digest() == expected[name].instances.annotations.digest()
        part.check_complete()


def test_test_images_that_are_not_evaluated_on(source: Path, tmp_path: Path) -> None:
    roboflow(source)
    (source / "valid").rename(source / "test")
    named = "test/_annotations.coco.json"
    result = run_command("prepare", "coco", "--source", source, "--out", tmp_path / "out", "--workers", 1)
    assert result.code == 0 and f"{source / named}: not used; --val {named} evaluates on it\n" in result.err
    parts = coco_layout.find_parts(source, val=named)
    assert list(parts) == ["train", "test"] and not coco_layout.unused_test_part(source, parts)
    with pytest.raises(UserError, match=f"name other files with --train and --val; {source} has some"):
        coco_layout.find_parts(source.parent)


def test_the_version_is_of_the_content(source: Path, tmp_path: Path) -> None:
    path = source / "annotations/instances_train2017.json"
    versions = [prepared(source, tmp_path / "0").version]
    change(path, lambda c: c["images"].reverse() or c.update(info={"year": 2026}))
    assert prepared(source, tmp_path / "1").version == versions[0]
    change(path, lambda c: c["annotations"][0].update(area=601))
    versions.append(prepared(source, tmp_path / "2").version)
    assert "holds a dataset that was prepared differently: source" in prepare(source, tmp_path / "0").error
    change(path, lambda c: c["annotations"][0].update(iscrowd=1))
    versions.append(prepared(source, tmp_path / "3").version)
    save_image(source / "train2017/0003.jpg", picture(60, 40, 77))
    versions.append(prepared(source, tmp_path / "4").version)
    for name in ("train", "val"):
        change(source / f"annotations/instances_{name}2017.json", lambda c: c["categories"][0].update(name="lion"))
    versions.append(prepared(source, tmp_path / "5").version)
    assert len(set(versions)) == 5


def test_other_formats_are_encoded_again_at_their_own_size(source: Path, tmp_path: Path) -> None:
    save_image(source / "train2017/0001.jpg", picture(40, 60), "PNG")
    save_image(source / "train2017/large.png", picture(700, 1500), "PNG")
    path = source / "annotations/instances_train2017.json"
    large = {"id": 5, "file_name": "large.png", "height": 700, "width": 1500}
    change(path, lambda c: c["images"].append(large))
    manifest = prepared(source, tmp_path / "out")
    file = beton.read_beton(tmp_path / "out/train.beton")
    assert (file.heights[0], file.widths[0]) == (700, 1500)
    assert manifest.train and (manifest.train.counts["kept"], manifest.train.counts["converted"]) == (7, 2)


def test_any_number_of_workers(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_part, "CHUNK", 2)
    prepared(source, tmp_path / "one")
    shutil.copytree(source, tmp_path / "elsewhere")
    prepared(tmp_path / "elsewhere", tmp_path / "three", "--workers", 3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_missing_and_unreadable_images(source: Path, tmp_path: Path) -> None:
    (source / "train2017/0003.jpg").unlink()
    error = prepare(source, tmp_path / "out").error
    assert error.startswith(f"{source}/train2017: 1 of the 8 images of instances_train2017.json are missing: 0003.jpg;")
    assert not (tmp_path / "out").exists()
    save_image(source / "train2017/0003.jpg", picture(60, 40))
    (source / "train2017/0001.jpg").write_bytes(b"<html>")
    assert "1 file is unreadable: train2017/0001.jpg: not an image" in prepare(source, tmp_path / "out").error

    (source / "train2017/0003.jpg").unlink()
    manifest = prepared(source, tmp_path / "out", "--skip-unreadable")
    assert [u.file for u in manifest.unreadable] == ["train2017/0001.jpg", "train2017/0003.jpg"]
    assert manifest.train and (manifest.train.images, manifest.train.trained_on) == (6, 5)
    held = Annotations.load(tmp_path / "out/train.safetensors", 2)
    ids = [100, 102, 104, 105, 106, 107]
    assert held.image_ids.tolist() == beton.read_beton(tmp_path / "out/train.beton").labels.tolist() == ids
    assert held.labels.tolist() == [1, 1, 2, 1, 2] and not held.crowds.any()


def test_images_of_another_size_than_stated(source: Path, tmp_path: Path) -> None:
    good = (source / "train2017/0003.jpg").read_bytes()
    save_image(source / "train2017/0003.jpg", picture(40, 60))
    error = prepare(source, tmp_path / "out").error
    assert "instances_train2017.json: 1 image is of another width x height than stated: 0003.jpg is 60 x 40," in error
    assert "not 40 x 60; repair either and run the command again" in error
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".prepare"]
    (source / "train2017/0003.jpg").write_bytes(good)
    prepared(source, tmp_path / "out")
    prepared(source, tmp_path / "undisturbed")
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_no_file_outside_the_image_folder_is_read(source: Path, tmp_path: Path) -> None:
    save_image(tmp_path / "secret.jpg", picture(40, 60))
    path = source / "annotations/instances_train2017.json"
    for name in ("../../secret.jpg", str(tmp_path / "secret.jpg"), "a/../../../secret.jpg"):
        change(path, lambda c, name=name: c["images"][3].update(file_name=name))
        error = prepare(source, tmp_path / "out", "--skip-unreadable").error
        assert f"{path}: images[3].file_name: expected a file's name below the image folder; found " in error
    assert not (tmp_path / "out").exists()


def test_wrong_sources_and_options(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare(tmp_path / "none", out).error == f"--source {tmp_path}/none: no such folder"
    assert "expected annotations/instances_train*.json or instances_val*.json" in prepare(tmp_path, out).error
    assert prepare(source, out, "--train", "x.json").error.startswith("--train x.json: no such file in ")
    assert "--max-side belongs to imagenet and imagefolder, not to" in prepare(source, out, "--max-side", 300).error
    assert "--classes belongs to imagefolder" in prepare(source, out, "--classes", "x").error
    result = run_command("prepare", "imagefolder", "--source", source, "--out", out, "--train", "x.json")
    assert result.error == "--train belongs to coco, not to imagefolder"
    change(source / "annotations/instances_val2017.json", lambda c: c["categories"].append({"id": 7, "name": "cow"}))
    error = prepare(source, out).error
    assert "have different categories; expected the same ids and names in both: only val has 7 'cow'" in error
    shutil.copy(
        source / "annotations/instances_val2017.json", source / "annotations/instances_valminusminival2014.json"
    )
    assert "has instances_val2017.json, instances_valminusminival2014.json; choose one of" in prepare(source, out).error
    shutil.rmtree(source / "train2017")
    result = prepare(source, out, "--val", "instances_val2017.json")
    assert "instances_train2017.json: none of its images, such as 0000.jpg, is in one of " in result.error
    assert result.error.endswith(f"; a file of that name is in {source}/val2017: move the images")
    (source / "annotations/instances_train2017.json").write_text('{"images": [')
    assert "instances_train2017.json: not JSON: " in prepare(source, out, "--val", "instances_val2017.json").error
    assert not out.exists()


def test_what_is_in_the_way(source: Path, tmp_path: Path) -> None:
    for name in BOTH[:2] + BOTH[3:]:
        out = tmp_path / name.replace(".", "-")
        out.mkdir()
        (out / name).write_bytes(b"somebody's")
        assert f"{out / name}: exists already, without a manifest.json; choose" in prepare(source, out).error
        assert (out / name).read_bytes() == b"somebody's"


def test_folders_of_the_two_kinds_are_not_taken_for_each_other(source: Path, tmp_path: Path) -> None:
    prepared(source, tmp_path / "out")
    with pytest.raises(UserError, match="damaged: dataset"):
        Manifest.read(tmp_path / "out")
    save_image(tmp_path / "tree/val/a/0.jpg", picture(20, 30))
    result = run_command("prepare", "imagefolder", "--source", tmp_path / "tree", "--out", tmp_path / "out")
    assert "prepared differently: dataset coco, not imagefolder; max_side None, not 400" in result.error
    (tmp_path / "out/train.safetensors").write_bytes(b"torn")
    assert "train.safetensors: has 4 bytes, manifest.json states " in prepare(source, tmp_path / "out").error


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """After a kill no file has its final name; the resumed command gives the same bytes."""
    source, out = tmp_path / "coco", tmp_path / "out"
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 300, "width": 400} for i in range(800)]
    save_image(source / "train2017/0.jpg", picture(300, 400))
    for i in range(1, 800):
        os.link(source / "train2017/0.jpg", source / f"train2017/{i}.jpg")
    boxes = [{"image_id": i, "category_id": 3, "bbox": [1, 2, 30, 40]} for i in range(0, 800, 2)]
    write_instances(source / "annotations/instances_train2017.json", images, boxes)
    running = subprocess.Popen(
        [sys.executable, "-m", "harness.prepare", "coco", "--source", source, "--out", out, "--workers", "1"],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    journal = out / ".prepare/train.journal"
    try:
        until(lambda: journal.exists() and journal.stat().st_size)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    chunks = len(journal.read_bytes().splitlines())
    assert 0 < chunks < 4 and [path.name for path in out.iterdir()] == [".prepare"]
    seen: list[int] = []
    how = Settings(max_side=None, quality=90), 2, False, lambda part, done, _: seen.append(done)
    coco.prepare_coco(prepare_part.Request("coco", source, out, *how))
    assert seen[0] == chunks * prepare_part.CHUNK
    manifest, _ = coco.prepare_coco(prepare_part.Request("coco", source, tmp_path / "undisturbed", *how))
    assert contents(out) == contents(tmp_path / "undisturbed")
    assert manifest.test.images == 800 and manifest.test.trained_on == 400


@pytest.mark.parametrize("unnamed", [(), ("val.beton",), ("train.beton", "val.beton")])
def test_killed_while_naming(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unnamed: tuple[str, ...]
) -> None:
    """With some final names and no manifest, the same command resumes."""
    prepared(source, tmp_path / "undisturbed")
    out = tmp_path / "out"

    def killed(self: CocoManifest, folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CocoManifest, "write", killed)
        assert prepare(source, out).code == 130
    assert {path.name for path in out.iterdir()} == {*BOTH, ".prepare"} - {"manifest.json"}
    for name in unnamed:
        (out / name).rename(out / ".prepare" / name)
    prepared(source, out)
    assert contents(out) == contents(tmp_path / "undisturbed")

"""`prepare` of the layouts that people have: Tiny-ImageNet's, one folder of classes, folders of programs. Names of
datasets, errors of the disk and calls at the same time.
"""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.data import beton
from harness.data.manifest import Manifest, Settings
from harness.data.prepare import dataset as prepare_dataset
from harness.data.prepare import layouts
from harness.data.prepare import part as prepare_part
from harness.data.prepare.resumable import Chunk
from harness.errors import UserError
from tests.support.cli import CommandResult, run_command
from tests.support.images import picture, save_image

CLASSES = ("ant", "bee")


def prepare(source: Path, out: Path, *options: object) -> CommandResult:
    return run_command("prepare", "imagefolder", "--source", source, "--out", out, "--workers", 1, *options)


def prepared(source: Path, out: Path, *options: object) -> Manifest:
    result = prepare(source, out, *options)
    assert result.code == 0, result.err
    return Manifest.read(out)


def refused(source: Path, *options: object) -> str:
    """Return the message of a preparation that must leave nothing behind."""
    error = prepare(source, source.parent / "refused", *options).error
    assert not (source.parent / "refused").exists()
    return error


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make two classes of 4 + 2 images."""
    for label, name in enumerate(CLASSES):
        for i in range(6):
            path = tmp_path / "tree" / ("val" if i >= 4 else "train") / name / f"{name}_{i}.JPEG"
            save_image(path, picture(10, 12, 10 * label + i))
    return tmp_path / "tree"


@pytest.fixture
def tiny(tree: Path, tmp_path: Path) -> Path:
    """Make the same dataset as Tiny-ImageNet is distributed."""
    root = tmp_path / "tiny"
    for name in CLASSES:
        shutil.copytree(tree / "train" / name, root / "train" / name / "images")
        (root / "train" / name / f"{name}_boxes.txt").write_text("x\t0\t0\t9\t9\n")
    shutil.copytree(tree / "val/ant", root / "val/images")
    shutil.copytree(tree / "val/bee", root / "val/images", dirs_exist_ok=True)
    lines = [f"{name}_{i}.JPEG\t{name}\t0\t0\t9\t9\n" for i in (5, 4) for name in CLASSES]
    (root / "val/val_annotations.txt").write_text("".join(lines))
    save_image(root / "test/images/test_0.JPEG", picture(10, 12))
    (root / "wnids.txt").write_text("bee\nant\n")
    return root


def test_tiny_imagenet_as_it_is_distributed(tree: Path, tiny: Path, tmp_path: Path) -> None:
    in_folders = prepared(tree, tmp_path / "in folders")
    manifest = prepared(tiny, tmp_path / "out")
    assert (manifest.version, manifest.classes) == (in_folders.version, CLASSES)
    assert manifest.train and (manifest.train.counts["ignored"], manifest.test.images) == (2, 4)
    shutil.rmtree(tiny / "train")
    evaluation_only = prepared(tiny, tmp_path / "evaluation")
    assert evaluation_only.train is None and evaluation_only.classes == CLASSES


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("ant_5.JPEG\tant\t0\t0\t9\t9", "ant_5.JPEG", "val_annotations.txt:1: expected a file's name, a tab and its"),
        ("bee_5.JPEG", "ant_5.JPEG", "val_annotations.txt:2: ant_5.JPEG is of class bee, and of ant before"),
        ("bee_5.JPEG", "x.JPEG", "val_annotations.txt: 1 of its 4 images are not in "),
        ("bee_5.JPEG\tbee\t0\t0\t9\t9\n", "", "val/images: no label for bee_5.JPEG"),
        ("bee_5.JPEG\tbee", "bee_5.JPEG\tcat", "have different classes: only the test images have cat"),
    ],
)
def test_damaged_tables_of_classes(tiny: Path, old: str, new: str, error: str) -> None:
    table = tiny / "val/val_annotations.txt"
    table.write_text(table.read_text().replace(old, new, 1))
    assert error in refused(tiny)


def test_what_programs_leave_behind_is_no_class_and_no_image(tree: Path, tmp_path: Path) -> None:
    version = prepared(tree, tmp_path / "clean").version
    for part in ("train", "val"):
        for folder in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
            save_image(tree / part / folder / "x.jpg", picture(9, 9))
            save_image(tree / part / "ant" / folder / "x.jpg", picture(9, 9))
        for file in (".DS_Store", "Thumbs.db", "bee/Thumbs.db", "bee/._bee_0.JPEG"):
            (tree / part / file).write_bytes(b"x")
    (tree / ".git/train").mkdir(parents=True)
    manifest = prepared(tree, tmp_path / "out")
    assert manifest.version == version and manifest.train
    assert manifest.train.counts["ignored"] == manifest.test.counts["ignored"] == 10


@pytest.mark.parametrize("target", [".", "..", "../..", "../bee"])
def test_links_to_a_folder_that_they_are_in(tree: Path, target: str) -> None:
    before = layouts.image_folder(tree).test
    (tree / "val/ant/link").symlink_to(target)
    (tree / "val/bee/link").symlink_to("../ant")
    names = [file.name for file in layouts.image_folder(tree).test.files if file.name.count("link") < 2]
    assert [name for name in names if "link" not in name] == [file.name for file in before.files]
    linked = {"ant/link/bee_4.JPEG", "ant/link/bee_5.JPEG"} if target == "../bee" else set()
    assert linked | {"bee/link/ant_4.JPEG", "bee/link/ant_5.JPEG"} == {name for name in names if "link" in name}


@pytest.mark.parametrize("left", ["__MACOSX", "@eaDir", "images"])
def test_what_is_left_beside_images_of_tiny_imagenet(tree: Path, tiny: Path, left: str) -> None:
    part = (tree if left == "images" else tiny) / "val"
    (part / left).mkdir()
    table = part / "val_annotations.txt"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes() if table.exists() else b"")
    files = layouts.image_folder(part.parent).test.files
    assert [(file.label, Path(file.name).name) for file in files] == [
        (label, f"{name}_{i}.JPEG") for label, name in enumerate(CLASSES) for i in (4, 5)
    ]


@pytest.mark.parametrize(
    ("before", "after"), [("train", "Train"), ("val", "VAL"), ("val", "valid"), ("val", "test"), ("", "inner")]
)
def test_parts_are_found_by_other_names(tree: Path, tmp_path: Path, before: str, after: str) -> None:
    version = prepared(tree, tmp_path / "0").version
    if before:
        (tree / before).rename(tree / after)
    else:
        (tmp_path / "outer/__MACOSX/train").mkdir(parents=True)
        tree = tree.rename(tmp_path / "outer/tree").parent
    assert prepared(tree, tmp_path / "1").version == version


def test_parts_that_are_not_found(tree: Path, tiny: Path, tmp_path: Path) -> None:
    error = prepare(tmp_path, tmp_path / "refused").error
    assert error == f"--source {tmp_path}: tiny, tree have parts of their own; name one of them"
    (tree / "train").rename(tree / "trian")
    assert refused(tree).endswith(
        "no folder train; trian has classes of val: rename it to train, or move it away to evaluate only"
    )
    (tree / "trian").rename(tree / "train")
    (tree / "val").rename(tree / "vall")
    assert "no folder val (or validation, valid, test) next to train; found vall; rename vall to val if" in refused(
        tree
    )
    (tiny / "val/val_annotations.txt").unlink()
    assert f"{tiny}/val: expected a folder per class: {tiny}/val/images has 4 images without a class" in refused(tiny)
    shutil.rmtree(tiny / "val")
    error = refused(tiny)
    assert f"test does not count: {tiny}/test/images has 1 image without a class; --val-share 0.1" in error
    assert "found ant, bee; --val-share 0.1 of `imagefolder` holds" in refused((tree / "train").rename(tmp_path / "x"))


def names(out: Path, tree: Path) -> set[str]:
    """Return the names of the test images of a dataset, which are known by their bytes."""
    by_content = {path.read_bytes(): path.name for path in tree.rglob("*.JPEG")}
    held = beton.read_beton(out / "val.beton")
    return {by_content[bytes(held.jpeg(i))] for i in range(len(held))}


def test_a_share_of_each_class_is_held_out(tree: Path, tmp_path: Path) -> None:
    shutil.rmtree(tree / "val")
    manifest = prepared(tree, tmp_path / "a", "--val-share", 0.25)
    assert manifest.train and (manifest.train.images, manifest.test.images, manifest.test.per_class_min) == (6, 2, 1)
    assert json.loads((tmp_path / "a/manifest.json").read_text())["settings"]["val_share"] == 0.25
    by_hash = {"ant_1.JPEG", "bee_3.JPEG"}  # of the name, on every machine
    assert names(tmp_path / "a", tree) == by_hash
    alone = (tree / "train").rename(tmp_path / "alone")
    assert prepared(alone, tmp_path / "b", "--val-share", 0.25).version == manifest.version
    assert prepared(alone, tmp_path / "c", "--val-share", 0.5).version != manifest.version
    assert "val_share 0.25, not 0.5" in prepare(alone, tmp_path / "b", "--val-share", 0.5).error
    assert "of ant, which has 4 images, 0 would be held out" in refused(alone, "--val-share", 0.1)
    assert "expected a share between 0 and 1" in refused(alone, "--val-share", 1)


def test_nothing_more_is_held_out_where_test_images_are(tree: Path) -> None:
    assert refused(tree, "--val-share", 0.25) == (
        f"--val-share: {tree}/val exists already and is evaluated on; leave --val-share out"
    )
    (tree / "train.parquet").touch()
    shutil.rmtree(tree / "val")
    shutil.rmtree(tree / "train")
    assert refused(tree, "--val-share", 0.25) == f"--val-share 0.25: {tree} holds shards; it is for class folders only"


def test_a_listed_part_without_images(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n")
    shutil.rmtree(tree / "val/ant")
    for image in (tree / "val/bee").iterdir():
        image.unlink()
    assert f"{tree}/val: no image of ant, bee, cat (images are" in refused(tree, "--classes", tmp_path / "classes.txt")


def test_a_name_is_no_part_of_the_content(tree: Path, tmp_path: Path) -> None:
    unnamed, named = prepared(tree, tmp_path / "0"), prepared(tree, tmp_path / "1", "--name", "insects")
    assert (named.name, named.version) == ("insects", unnamed.version)
    assert '"name"' not in (tmp_path / "0/manifest.json").read_text()
    assert prepared(tree, tmp_path / "1").name == "insects"
    assert prepared(tree, tmp_path / "1", "--name", "bugs").name == "bugs"
    assert "--name a b: expected up to 64 letters" in refused(tree, "--name", "a b")


def test_an_error_of_the_disk_is_not_remembered(tree: Path, tmp_path: Path) -> None:
    class Failing:
        def encoded(self, _: Path, chunks: Any, __: Settings) -> Any:
            yield from ((Chunk([], {}, [(chunk[0].name, os.strerror(errno.EIO))]), []) for chunk in chunks)

    part = layouts.Part(tree / "val", [layouts.found_file(tree / "val", "bee/bee_5.JPEG", 0)], 0)
    how = Settings(max_side=400, quality=90), 1, False, lambda *_: None
    build = prepare_part.PartBuild("test", part, prepare_part.Request("imagefolder", tree, tmp_path / "out", *how))
    build.unfinished.parent.mkdir(parents=True)
    with pytest.raises(UserError, match="val/bee/bee_5.JPEG: Input/output error; the same command reads it again"):
        build.fill(Failing())
    assert build.unfinished.with_suffix(".journal").read_text() == ""


def test_a_call_that_ends_after_another(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check, out = prepare_dataset._check_room, tmp_path / "out"

    def other(*args: Any) -> None:
        monkeypatch.setattr(prepare_dataset, "_check_room", check)
        prepared(tree, out)

    monkeypatch.setattr(prepare_dataset, "_check_room", other)
    assert "another process has just prepared a dataset there; see what it holds" in prepare(tree, out).error
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "train.beton", "val.beton"]

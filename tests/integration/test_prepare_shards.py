"""`prepare` of images in Parquet shards, webdataset tars and ImageNet's own tars: the same data as class folders."""

import gzip
import io
import json
import random
import re
import tarfile
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.data import beton, cifar_files
from harness.data.load import cifar, parquet_images
from harness.data.load.arrays import WrongData
from harness.data.manifest import Manifest, Settings
from harness.data.prepare import imagefolder, layouts, resumable, shards
from harness.data.prepare import part as prepare_part
from harness.data.prepare.pool import Workers
from harness.data.prepare.tar_members import tar_members
from tests.support.cli import run_command
from tests.support.images import encode_jpeg, encode_png, picture, save_image
from tests.support.shards import tar_of, write_parquet, write_tar

CLASSES = ("ant", "bee", "cat")
Images = list[tuple[str, bytes, int]]  # name, bytes, label


def error(source: Path, *options: object, dataset: str = "imagefolder") -> str:
    out = source.parent / "refused"
    result = run_command("prepare", dataset, "--source", source, "--out", out, "--workers", 1, *options)
    assert not (out / "manifest.json").exists()
    return result.error


class InProcess(Workers):
    """Workers that are this process, which saves the time to start others."""

    def submit(self, function, *args, **options):  # type: ignore[no-untyped-def,override]
        future: Future[object] = Future()
        future.set_result(function(*args, **options))
        return future


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.data.prepare.dataset.Workers", InProcess)


def prepared(source: Path, dataset: str = "imagefolder", skip: bool = False, classes: str | None = None) -> Manifest:
    """Prepare in this process."""
    out = source.parent / f"{source.name}_prepared"
    settings = Settings(max_side=400, quality=90, restart=1)
    request = prepare_part.Request(dataset, source, out, settings, 1, skip, lambda *_: None)
    if dataset == "imagenet":
        return imagefolder.prepare_imagenet(request)[0]
    return imagefolder.prepare_imagefolder(request, classes)[0]


def listed(source: Path, part: str = "train") -> list[tuple[int, bytes]]:
    file = beton.read_beton(source.parent / f"{source.name}_prepared/{part}.beton")
    assert file.indices.tolist() == list(range(len(file)))
    return [(int(file.labels[i]), bytes(file.jpeg(i))) for i in range(len(file))]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make three classes of 8 + 2 images, some in subfolders, and their prepared form."""
    source = tmp_path_factory.mktemp("images") / "tree"
    for label, name in enumerate(CLASSES):
        for i in range(10):
            inside = "more/" if i == 3 else ""
            save_image(
                source / ("val" if i >= 8 else "train") / name / f"{inside}{i * 7}.jpg", picture(20, 30, 10 * label + i)
            )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.data.prepare.dataset.Workers", InProcess)
        prepared(source)
    return source


def images(tree: Path, part: str) -> Images:
    """Return the images in an order that has nothing to do with their names."""
    folder = tree / part
    rows = [(str(p.relative_to(folder)), p.read_bytes(), CLASSES.index(p.relative_to(folder).parts[0]))
            for p in folder.rglob("*.jpg")]  # fmt: skip
    random.Random(len(rows)).shuffle(rows)
    return rows


def as_parquet(tree: Path, source: Path) -> None:
    train = images(tree, "train")
    write_parquet(source / "data/train-00000-of-00002-1a2b.parquet", train[:15], CLASSES)
    write_parquet(source / "data/train-00001-of-00002-3c4d.parquet", train[15:], CLASSES)
    write_parquet(source / "data/validation-00000-of-00001.parquet", images(tree, "val"), CLASSES)
    write_parquet(source / "data/test-00000-of-00001.parquet", [("x.jpg", b"", -1)], CLASSES)
    save_image(source / "data/.cache/train-9.parquet", picture(9, 9))


def as_other_parquet(tree: Path, source: Path) -> None:
    """Write shards as the Hub converts data: a folder per configuration and split, numbered files, other columns."""
    write_parquet(source / "default/train/0000.parquet", images(tree, "train"), CLASSES, ("img", "fine_label"), 1000)
    write_parquet(source / "default/test/0000.parquet", images(tree, "val"), CLASSES, ("img", "fine_label"))


def as_named_labels(tree: Path, source: Path) -> None:
    for part in ("train", "val"):
        rows = [(name, content, CLASSES[label]) for name, content, label in images(tree, part)]
        write_parquet(source / f"{part}.parquet", rows)


def samples(rows: Images, label: Callable[[int], tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    members = []
    for name, content, number in rows:
        extension, text = label(number)
        members += [(name, content), (name.replace(".jpg", extension), text), (name.replace(".jpg", ".txt"), b"x")]
    return members


def as_webdataset(tree: Path, source: Path) -> None:
    train = samples(images(tree, "train"), lambda label: (".cls", f"{label}\n".encode()))
    write_tar(source / "x-train-0000.tar", train[:33])
    write_tar(source / "x-train-0001.tar", train[33:])
    write_tar(source / "x-validation-0000.tar", samples(images(tree, "val"), lambda n: (".cls", str(n).encode())))
    (source / "classnames.txt").write_text("\n".join(CLASSES))


def as_json_webdataset(tree: Path, source: Path) -> None:
    for part in ("train", "val"):
        rows = samples(images(tree, part), lambda label: (".json", json.dumps({"label": CLASSES[label]}).encode()))
        write_tar(source / part / "0.tar", rows)


FORMS = [as_parquet, as_other_parquet, as_named_labels, as_webdataset, as_json_webdataset]


@pytest.mark.parametrize("write", FORMS)
def test_shards_give_the_version_of_class_folders(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, Path], None]
) -> None:
    monkeypatch.setattr(prepare_part, "CHUNK", 5)
    write(tree, tmp_path / "shards")
    expected, manifest = Manifest.read(tree.parent / "tree_prepared"), prepared(tmp_path / "shards")
    assert manifest.version == expected.version and manifest.classes == CLASSES
    assert manifest.train and expected.train
    assert {**manifest.train.counts, "ignored": 0} == {**expected.train.counts, "ignored": 0}
    for part in ("train", "val"):
        assert listed(tmp_path / "shards", part) == listed(tree, part)


WNIDS = ("n01440764", "n01443537", "n15075141")


@pytest.fixture
def imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an unpacked ImageNet of 3 classes with 10 to 12 + 2 images each, labels beside it, and prepare it."""
    monkeypatch.setattr(layouts, "imagenet", lambda: layouts.Official("Tiny", WNIDS, 33, (10, 12), 2))
    source = tmp_path / "unpacked"
    for label, wnid in enumerate(WNIDS):
        for i in range(10 + label):  # names of which some begin with another
            save_image(source / f"train/{wnid}/{wnid}_{i}.JPEG", picture(20, 30, label * 20 + i))
    labels = {f"ILSVRC2012_val_{number:08}": label for number, label in enumerate((2, 0, 1, 0, 2, 1), 1)}
    for number, name in enumerate(labels):
        save_image(source / f"val/{name}.JPEG", picture(20, 30, 99 + number))
    rows = "".join(f"{name},{WNIDS[label]} 1 2 3 4\n" for name, label in labels.items())
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + rows)
    prepared(source, "imagenet")
    return source


def test_official_tars_give_the_bytes_of_the_unpacked_dataset(imagenet: Path) -> None:
    source = imagenet.parent / "ILSVRC2012"
    classes = [
        (f"{wnid}.tar", tar_of((path.name, path.read_bytes()) for path in (imagenet / "train" / wnid).iterdir()))
        for wnid in reversed(WNIDS)
    ]
    write_tar(source / "ILSVRC2012_img_train.tar", classes)
    assert error(source, dataset="imagenet") == f"--source {source}: ILSVRC2012_img_val.tar is missing"
    validation = [(path.name, path.read_bytes()) for path in (imagenet / "val").iterdir()]
    write_tar(source / "ILSVRC2012_img_val.tar", validation)
    prepared(source, "imagenet")
    for name in ("manifest.json", "train.beton", "val.beton"):
        tars, unpacked = (source.parent / f"{of}_prepared/{name}" for of in (source.name, "unpacked"))
        assert tars.read_bytes() == unpacked.read_bytes()

    write_tar(source / "ILSVRC2012_img_train.tar", classes[1:])
    assert "21 images, Tiny states 33; classes with other than 10 to 12: n15075141 has 0" in error(
        source, dataset="imagenet"
    )
    write_tar(source / "ILSVRC2012_img_train.tar", [*classes[1:], (classes[0][0], classes[0][1][:2000])])
    assert "ILSVRC2012_img_train.tar: n15075141.tar: cut or damaged: " in error(source, dataset="imagenet")


def test_imagenet_in_the_hubs_shards(imagenet: Path) -> None:
    """Labels are ranks of the sorted WordNet ids, whose words the shards state; files' names end with the ids."""
    source, words = imagenet.parent / "hub", ("tench, Tinca tinca", "goldfish", "toilet tissue")
    stored = {part: listed(imagenet, part) for part in ("train", "val")}
    names = {path.read_bytes(): path.stem for path in imagenet.rglob("*.JPEG")}
    rows = {
        part: [(f"{names[jpeg]}_{WNIDS[label]}.JPEG", jpeg, label) for label, jpeg in reversed(images)]
        for part, images in stored.items()
    }
    write_parquet(source / "data/train-00000-of-00001.parquet", rows["train"], words)
    write_parquet(source / "data/validation-00000-of-00001.parquet", rows["val"], words)
    assert prepared(source, "imagenet").version == Manifest.read(imagenet.parent / "unpacked_prepared").version
    wrong = [(name, jpeg, 2 - label) for name, jpeg, label in rows["val"]]
    write_parquet(source / "data/validation-00000-of-00001.parquet", wrong, words)
    assert (
        "validation-00000-of-00001.parquet/ILSVRC2012_val_00000005_n15075141.JPEG has the label 0, in Tiny that of "
        "n01440764; other labels are prepared as `imagefolder`" in error(source, dataset="imagenet")
    )
    (source / "data/train-00000-of-00001.parquet").unlink()
    assert error(source, dataset="imagenet").endswith(
        "no shards of train; to evaluate only, prepare it as `imagefolder`"
    )


JPEG = encode_jpeg(picture(9, 9))
ROWS = [(f"{label}.jpg", JPEG, label) for label in (0, 1, 2)]
MEMBERS = [("a.jpg", JPEG), ("a.cls", b"0"), ("b.jpg", JPEG), ("b.cls", b"1")]


def hostile() -> bytes:
    """Return a tar with links, a device, names elsewhere and a file with holes, beside one image of each class."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind in (("/etc/a.jpg", tarfile.SYMTYPE), ("../b.jpg", tarfile.LNKTYPE), ("c.jpg", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        for name, member in [("/tmp/../../x.jpg", JPEG), ("/tmp/../../x.cls", b"0"), *MEMBERS[2:]]:
            info = tarfile.TarInfo(name)
            info.size = len(member)
            tar.addfile(info, io.BytesIO(member))
    return content.getvalue()


def large_header() -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    return info.tobuf(tarfile.GNU_FORMAT)


# what is wrong, files by their name: rows of a Parquet shard or the content of a file, and what is said
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("no labels", {"val.parquet": pa.table({"image": [JPEG], "label": [0.5]})},
     "val.parquet: no column of labels (whole numbers or names); label is 'double'; expected"),
    ("no image", {"val.tar": tar_of([("a.b.jpg", JPEG), ("a.cls", b"0")])},
     "val.tar: no image; a.b.jpg has the extension b.jpg after its first dot, expected one of .jpg .jpeg"),
    ("no bytes", {"train.parquet": pa.table({"picture": ["a"], "label": [0]}), "val.parquet": ROWS},
     "train.parquet: no column of image bytes (binary, or a structure of bytes and path); expected one called image or "
     "img, found picture, label"),
    ("no label", {"val.parquet": pa.table({"image": [JPEG], "coarse_label": [0]})},
     "val.parquet: no column of labels (whole numbers or names); expected one called label or fine_label or labels or "
     "cls, found image, coarse_label"),
    ("label out of range", {"train.parquet": [*ROWS, ("z.jpg", JPEG, 3)], "val.parquet": ROWS},
     "train.parquet: z.jpg has the label 3; expected 0 to 2"),
    ("a few labels hidden", {"val.parquet": [*ROWS, (None, JPEG, -1)]},
     "val.parquet: row 3 has the label -1; expected 0 to 2"),
    ("labels missing", {"val.parquet": [*ROWS, (None, JPEG, None)]},
     "val.parquet: 1 image has no label: row 3 (1 in all shards of this part); --skip-unreadable leaves them out"),
    ("no test shards", {"data/train.parquet": ROWS, "data/test.parquet": [("a.jpg", JPEG, -1)]},
     "no shards to evaluate on (those of test have no labels); expected some of val next to data/test.parquet, data/"),
    ("shards missing", {"train-00001-of-00003.parquet": ROWS, "val.parquet": ROWS},
     "2 shards of 3 missing: train-00000-of-00003, train-00002-of-00003; --skip-unreadable does without them"),
    ("two forms", {"train.parquet": ROWS, "val.tar": tar_of(MEMBERS)},
     "holds shards of two forms, train.parquet and val.tar; expected one"),
    ("two configurations", {"a/train.parquet": ROWS, "b/train/0.parquet": ROWS, "a/val.parquet": ROWS},
     "holds shards in several folders, a, b; name one of them with --source"),
    ("class folders too", {"train/ant/1.jpg": JPEG, "val-0.tar": tar_of(MEMBERS)},
     "holds class folders, train, and shards, val-0.tar; expected one of the two for all images"),
    ("no split", {"0000.parquet": ROWS}, "0000.parquet: expected train, val or test in the name of a shard or of its"),
    ("no list of classes", {"val.tar": tar_of(MEMBERS), "_info.json": b'{"classes": [1, 2]}'},
     "_info.json: expected a list of the names of the classes, in the order of their labels"),
    ("a class without images", {"train.parquet": ROWS, "val.parquet": ROWS[:2]},
     "no test image of cat; with --classes FILE, a class may have none"),
    ("not Parquet", {"val.parquet": b"PAR1" * 9}, "val.parquet: no Parquet file, or cut or damaged: "),
    ("LFS Parquet", {"val.parquet": b"version https://git-lfs.github.com/spec/v1\n"}, "val.parquet: a Git LFS pointer"),
    ("compressed", {"val.tar.gz": gzip.compress(tar_of(MEMBERS))}, "val.tar.gz: compressed with gzip: no image in it"),
    ("cut", {"val.tar": tar_of(MEMBERS)[:700]}, "val.tar: cut or damaged: it ends within a.jpg"),
    ("cut in a header", {"val.tar": tar_of(MEMBERS)[:1700]}, "val.tar: cut or damaged: no header of a member"),
    ("noise inside", {"val.tar": tar_of(MEMBERS[:2])[:2560] + b"x" * 5000}, "val.tar: cut or damaged: no header of a"),
    ("empty", {"val.tar": b""}, "val.tar: empty file"),
    ("no tar", {"val.tar": b"<html>" * 200}, "val.tar: cut or damaged: "),
    ("a header without end", {"val.tar": large_header()}, "val.tar: damaged: a header of 1,099,511,627,776 bytes"),
    ("key without label", {"val.tar": tar_of([*MEMBERS, ("c.jpg", JPEG)])}, 
     "val.tar: 1 image has no label in KEY.cls, nor label, cls, class_id or class in KEY.json: c.jpg ("),
    ("two images", {"val.tar": tar_of([*MEMBERS, ("a.png", JPEG)])}, "val.tar: a.png: a second image of the key a"),
    ("an empty label", {"val.tar": tar_of([("a.jpg", JPEG), ("a.cls", b"")])}, "val.tar: a.cls: no label can be read"),
    ("labels of JSON", {"val.tar": tar_of([("a.jpg", JPEG), ("a.json", b'{"label": [1]}')])},
     "val.tar: a.json: no label can be read of it: [1] is neither a number nor a name"),
    ("numbers and names", {"val.tar": tar_of([*MEMBERS, ("c.jpg", JPEG), ("c.cls", b"cat")])},
     "some labels are numbers and others names; expected one of the two, or the names in classes.txt"),
    ("no text", {"val.tar": tar_of([("a.jpg", JPEG), ("a.json", b'{"label": "\\ud800"}')])},
     "val.tar: a.json: no label can be read of it: "),
    ("a large label", {"val.tar": tar_of([("a.jpg", JPEG), ("a.cls", b"999999999999")])},
     "val.tar: a.jpg: 999,999,999,999 is too large for the number of a class"),
]  # fmt: skip


@pytest.mark.parametrize(("contents", "expected"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_shards_are_refused(tmp_path: Path, contents: dict[str, Any], expected: str) -> None:
    source = tmp_path / "source"
    for name, content in contents.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            write_parquet(path, content, CLASSES)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            pq.write_table(content, path)
    said = error(source)
    assert str(source) in said and expected in said and "\n" not in said


def test_hidden_shards_and_hidden_members_are_ignored(tmp_path: Path) -> None:
    hidden = [("__MACOSX/a.jpg", JPEG), (".ipynb_checkpoints/a.jpg", JPEG), ("._a.jpg", JPEG)]
    labelled = [("a.jpg", JPEG), ("a.json", b"0"), ("b.jpg", JPEG), ("b.json", b'{"label": 1.0}')]
    for name in ("val.tar", "__MACOSX/val.tar", "@eaDir/val.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(tar_of([*hidden, *labelled]))
    tree = shards.in_shards(tmp_path, None, skip=False)
    assert tree and [(file.name, file.label) for file in tree.test.files] == [("a.jpg", 0), ("b.jpg", 1)]
    assert tree.test.ignored == len(hidden)


def test_holes_in_a_tar_are_not_taken_for_damage(tmp_path: Path) -> None:
    holes = tarfile.TarInfo("GNUSparseFile.0/c.jpg")
    content = b"1\n0\n9\n".ljust(512, b"\0") + JPEG[:9]
    holes.size = len(content)
    holes.pax_headers = {
        f"GNU.sparse.{key}": value
        for key, value in (("major", "1"), ("minor", "0"), ("name", "c.jpg"), ("realsize", "9999999"))
    }
    with tarfile.open(tmp_path / "val.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(holes, io.BytesIO(content))
    assert [(member.name, member.is_file) for member in tar_members(tmp_path / "val.tar")] == [("c.jpg", False)]


def test_a_hostile_tar_is_only_read(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/val.tar").write_bytes(hostile())
    manifest = prepared(tmp_path / "source")
    assert (manifest.classes, manifest.test.images, manifest.test.counts["ignored"]) == (("0", "1"), 2, 3)


def test_unreadable_images_of_shards(tmp_path: Path) -> None:
    source = tmp_path / "source"
    rows = [*ROWS, ("torn.jpg", JPEG[:100], 1), (None, None, 1), ("unlabelled.jpg", JPEG, None)]
    write_parquet(source / "val-00000-of-00002.parquet", rows, CLASSES)
    manifest = prepared(source, skip=True)
    assert [file.file for file in manifest.unreadable] == [
        f"val-00000-of-00002.parquet/{name}" for name in ("torn.jpg", "row 4")
    ]
    assert (manifest.test.images, manifest.test.counts["unreadable"], manifest.test.counts["ignored"]) == (3, 2, 1)


def test_classes_of_shards(tmp_path: Path) -> None:
    """Names of a list are matched with those of the shards; as many others are in the order of the labels."""
    (tmp_path / "more").write_text("dog\ncat\nbee\nant\n")
    write_parquet(tmp_path / "a/val.parquet", ROWS, CLASSES)
    prepared(tmp_path / "a", classes=str(tmp_path / "more"))
    assert [label for label, _ in listed(tmp_path / "a", "val")] == [1, 2, 3]
    (tmp_path / "others").write_text("x\ny\nz\n")
    write_parquet(tmp_path / "b/val.parquet", ROWS[:2], CLASSES)
    assert prepared(tmp_path / "b", classes=str(tmp_path / "others")).classes == ("x", "y", "z")
    (tmp_path / "others").write_text("x\ny\n")
    assert "val.parquet: states 3 classes, of which ant, bee, cat are not among the 2 that are expected" in error(
        tmp_path / "b", "--classes", tmp_path / "others"
    )


def test_a_killed_command_goes_on(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunks that were stored before a kill are kept."""
    monkeypatch.setattr(prepare_part, "CHUNK", 5)
    as_parquet(tree, tmp_path / "shards")
    chunks: list[int] = []
    add = resumable.Unfinished.add

    def dies(self: Any, *args: Any) -> None:
        if len(chunks) == 3:
            raise KeyboardInterrupt
        chunks.append(1)
        add(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(resumable.Unfinished, "add", dies)
        prepared(tmp_path / "shards")
    monkeypatch.setattr(resumable.Unfinished, "add", lambda self, *args: (chunks.append(1), add(self, *args)))
    prepared(tmp_path / "shards")
    assert len(chunks) == 8, "3 before the end, then the other 3 of training and 2 of test"
    assert listed(tmp_path / "shards") == listed(tree)


def test_cifar100_in_parquet(tmp_path: Path) -> None:
    """Pixels and fine labels come in the order of the rows, over all shards of a split."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), np.uint8)
    pngs = [encode_png(image.transpose(1, 2, 0)) for image in pixels]
    folder = tmp_path / "cifar100"
    paths = [folder / f"cifar100/train-{i:05}-of-00002.parquet" for i in range(2)]
    for path, part in zip(paths, (slice(4), slice(4, 6)), strict=True):
        rows = [(None, png, label) for label, png in enumerate(pngs)][part]
        write_parquet(path, rows, columns=("img", "fine_label"), row_group_size=3)
    images, labels = parquet_images.read_split(paths, cifar.SHAPE, ("PNG",), "CIFAR-100")
    assert np.array_equal(images, pixels) and labels.tolist() == list(range(6)) and labels.dtype == np.int64
    write_parquet(folder / "cifar100/test-00000-of-00001.parquet", [(None, pngs[0], 7)], columns=("img", "fine_label"))
    assert cifar_files.find_cifar100(tmp_path) == folder and cifar_files.find_cifar100(folder) == folder / "cifar100"
    assert cifar_files.find_cifar100(folder / "cifar100") == folder / "cifar100"
    data = cifar.read_arrays(folder)
    assert np.array_equal(data.train_images, pixels) and data.test_targets.tolist() == [7]
    narrow = encode_png(np.zeros((32, 31, 3), np.uint8))
    for content, why in ((JPEG, "cannot identify"), (narrow, "of shape (32, 31, 3)")):
        write_parquet(paths[1], [(None, content, 0)])
        with pytest.raises(WrongData, match=re.escape(str(paths[1])) + ": not CIFAR-100 .*" + re.escape(why)):
            parquet_images.read_split(paths, cifar.SHAPE, ("PNG",), "CIFAR-100")

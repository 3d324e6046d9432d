"""`prepare` of images in Parquet shards, webdataset tars and ImageNet's own tars: the same data as class folders."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data import beton
from harness.data.manifest import Manifest, Settings
from harness.data.prepare import imagefolder, layouts
from harness.data.prepare import part as prepare_part
from harness.data.prepare.pool import Workers
from tests.support.cli import run_command
from tests.support.images import picture, save_image
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
        from concurrent.futures import Future

        future: Future[object] = Future()
        future.set_result(function(*args, **options))
        return future


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.data.prepare.dataset.Workers", InProcess)


def prepared(source: Path, dataset: str = "imagefolder", skip: bool = False, classes: str | None = None) -> Manifest:
    """Prepare in this process."""
    out = source.parent / f"{source.name}_prepared"
    settings = Settings(max_side=400, quality=90)
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
    """As the Hub converts data: a folder per configuration and split, numbered files, other columns."""
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
    assert "22 images, Tiny states 33; classes with other than 10 to 12: n15075141 has 0" in error(
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

"""CIFAR-10, Tiny-ImageNet and STL-10 in every form that people keep them in, and what is none of them."""

import hashlib
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data import official_files
from harness.data.cifar_files import CIFAR10, find_cifar10, find_cifar100
from harness.data.load import cifar10, stl10, tiny_imagenet
from harness.data.load.arrays import ArrayDataset, WrongData
from harness.data.stl10_files import find_stl10
from harness.data.tiny_imagenet_files import find_tiny_imagenet
from tests.support.images import encode_png, picture, save_image
from tests.support.shards import write_parquet

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), np.uint8)
LABELS = np.arange(12) % 10


def tell(part: str, done: int, total: int) -> None:
    """Leave the progress untold."""


def batches() -> list[tuple[str, slice]]:
    """Return the files of CIFAR-10 with their two images each."""
    names = [name for part in CIFAR10.forms["cifar-10-batches-py"] for name in part]
    return [(name, slice(2 * i, 2 * i + 2)) for i, name in enumerate(names)]


def as_pickles(root: Path) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name, part in batches():
        content = {b"data": PIXELS[part].reshape(-1, 3072), b"labels": LABELS[part].tolist(), b"batch_label": b"x"}
        (folder / name).write_bytes(pickle.dumps(content, 2))
    return folder


def as_binary(root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for name, part in batches():
        rows = np.concatenate([LABELS[part, None].astype(np.uint8), PIXELS[part].reshape(-1, 3072)], 1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    return folder


def packed(unpacked: Callable[[Path], Path], name: str) -> Callable[[Path], Path]:
    def pack(root: Path) -> Path:
        (root / "elsewhere").mkdir()
        folder = unpacked(root / "elsewhere")
        with tarfile.open(root / name, "w:gz") as tar:
            tar.add(folder, folder.name)
        return root / name

    return pack


def as_parquet(root: Path) -> Path:
    pngs = [(None, encode_png(image.transpose(1, 2, 0)), int(k)) for image, k in zip(PIXELS, LABELS, strict=True)]
    for name, rows in (("train", pngs[:10]), ("test", pngs[10:])):
        write_parquet(root / f"cifar10/plain_text/{name}-00000-of-00001.parquet", rows, columns=("img", "label"))
    return root / "cifar10"


@pytest.mark.parametrize(
    "write",
    [as_pickles, as_binary, as_parquet, packed(as_pickles, "cifar-10-python.tar.gz"),
     packed(as_binary, "cifar-10-binary.tgz")],
)  # fmt: skip
def test_cifar10(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    place = write(tmp_path)
    assert find_cifar10(tmp_path) == place
    data = cifar10.read_arrays(place, tell)
    assert data.version() == ArrayDataset(PIXELS[:10], LABELS[:10], PIXELS[10:], LABELS[10:]).version()
    assert all(path.is_file() for path in cifar10.sources(place))


def test_what_is_not_cifar10(tmp_path: Path) -> None:
    folder = as_pickles(tmp_path)
    assert str(find_cifar100(tmp_path)).startswith(f"{folder} is CIFAR-10, another dataset; expected cifar-100-python ")
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": PIXELS[:1].reshape(1, -1), b"fine_labels": [1]}))
    with pytest.raises(WrongData, match="data_batch_3: not a CIFAR-10 file .no labels, .*: these are CIFAR-100's"):
        cifar10.read_arrays(folder, tell)
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": PIXELS[:2].reshape(2, -1), b"labels": [1]}))
    with pytest.raises(WrongData, match="data_batch_3: not a CIFAR-10 file .2 images and 1 labels"):
        cifar10.read_arrays(folder, tell)
    (folder / "data_batch_3").unlink()
    assert "lacks data_batch_3, unpack it again" in str(find_cifar10(tmp_path))


def test_published_sums_tell_the_official_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = as_pickles(tmp_path)
    assert "not the official data, by the published md5 of data_batch_1, " in official_files.note("cifar10", folder)
    sums = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name, _ in batches()}
    monkeypatch.setitem(official_files.MD5, "cifar10", sums)
    assert official_files.note("cifar10", folder) == "; the official data, by their published md5"
    assert "is not known" in official_files.note("cifar10", as_binary(tmp_path))


@pytest.mark.parametrize("packs", [False, True])
def test_stl10(tmp_path: Path, packs: bool) -> None:
    """Channels go column by column, and classes are counted from 1."""
    images = np.random.default_rng(1).integers(0, 256, (5, 3, 96, 96), np.uint8)
    labels = np.array([1, 10, 3, 2, 1])

    def write(root: Path) -> Path:
        folder = root / "stl10_binary"
        folder.mkdir()
        for name, part in (("train", slice(3)), ("test", slice(3, 5))):
            (folder / f"{name}_X.bin").write_bytes(images[part].transpose(0, 1, 3, 2).tobytes())
            (folder / f"{name}_y.bin").write_bytes(labels[part].astype(np.uint8).tobytes())
        return folder

    place = packed(write, "stl10_binary.tar.gz")(tmp_path) if packs else write(tmp_path)
    assert find_stl10(tmp_path) == place
    data = stl10.read_arrays(place, tell)
    assert data.version() == ArrayDataset(images[:3], labels[:3] - 1, images[3:], labels[3:] - 1).version()
    if not packs:
        (place / "train_y.bin").write_bytes(b"\1\0\1")
        with pytest.raises(WrongData, match=r"train_y.bin: label 0, expected 1 to 10: not STL-10"):
            stl10.read_arrays(place, tell)
        (place / "train_X.bin").write_bytes(b"x")
        with pytest.raises(WrongData, match="train_X.bin: 1 bytes are no whole number of images of 27,648: not STL-10"):
            stl10.read_arrays(place, tell)


def test_tiny_imagenet(tmp_path: Path) -> None:
    """Classes go by their names' ranks, grey images become RGB, and val is read by its table or by folders."""
    root, lines = tmp_path / "tiny-imagenet-200", []
    for i, wnid in enumerate(("n02", "n01")):
        for k in range(2):
            image = picture(64, 64, 2 * i + k + 1)
            save_image(root / f"train/{wnid}/images/{wnid}_{k}.JPEG", image.convert("L") if k else image)
        save_image(root / f"val/images/val_{i}.JPEG", picture(64, 64, 9 + i))
        lines.append(f"val_{i}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    (root / "val/val_annotations.txt").write_text("".join(lines))
    assert find_tiny_imagenet(tmp_path) == find_tiny_imagenet(root) == root
    data = tiny_imagenet.read_arrays(root, tell)
    assert data.train_images.shape == (4, 3, 64, 64) and data.train_targets.tolist() == [0, 0, 1, 1]
    assert data.test_targets.tolist() == [0, 1]
    with Image.open(root / "train/n01/images/n01_1.JPEG") as grey:
        assert np.array_equal(data.train_images[1], np.stack([np.asarray(grey)] * 3))
    (root / "val/val_annotations.txt").unlink()
    for i, wnid in enumerate(("n02", "n01")):
        (root / "val" / wnid).mkdir()
        (root / f"val/images/val_{i}.JPEG").rename(root / f"val/{wnid}/val_{i}.JPEG")
    (root / "val/images").rmdir()
    assert tiny_imagenet.read_arrays(root, tell).version() == data.version()
    save_image(root / "val/n01/small.JPEG", picture(63, 64))
    with pytest.raises(WrongData, match=r"small.JPEG: not an image of Tiny-ImageNet: pixels are .* \(63, 64, 3\)"):
        tiny_imagenet.read_arrays(root, tell)


def test_tiny_imagenet_in_parquet(tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (4, 64, 64, 3), np.uint8)
    rows = [(None, encode_png(image), k % 2) for k, image in enumerate(pixels)]
    for split, part in (("train", rows[:3]), ("valid", rows[3:])):
        write_parquet(tmp_path / f"tiny-imagenet/data/{split}-00000-of-00001.parquet", part)
    place = find_tiny_imagenet(tmp_path)
    assert place == tmp_path / "tiny-imagenet"
    data = tiny_imagenet.read_arrays(place, tell)
    assert np.array_equal(data.test_images[0], pixels[3].transpose(2, 0, 1)) and data.train_targets.tolist() == [
        0,
        1,
        0,
    ]

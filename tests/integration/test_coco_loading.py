"""Images loaded with their objects.

Batches are the same for any number of threads and processes, and from any step on. Boxes are where the objects are. An
epoch that is left early leaves no threads or memory behind.
"""

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from harness.data import beton
from harness.data.annotations import Annotations
from harness.data.coco_manifest import Category, CocoManifest
from harness.data.load import coco
from harness.data.load.arrays import WrongData
from harness.data.load.coco import CocoEvalSet, CocoLoader, CocoSource
from harness.spec import datasets
from harness.spec.schema import Recipe
from harness.spec.science import DatasetChoice
from harness.training.distributed.ranks import Ranks
from methods.detection import Objects
from tests.support.beton_loading import CPU, PIXELS, usage
from tests.support.cli import run_command
from tests.support.images import encode_jpeg, save_image
from tests.support.synthetic_coco import write_instances

N, BATCH, SIDES, MAX_SIDE = 26, 4, (48, 64, 80), 120
CATEGORIES = (Category(id=1, name="dog"), Category(id=3, name="cat"))
Step = tuple[Tensor, list[Objects], Tensor]


def marked(height: int, width: int, i: int) -> tuple[Image.Image, list[int]]:
    """Return a black image with a white rectangle, and the rectangle's x, y, width and height."""
    drawn = np.random.default_rng(i)
    w, h = int(drawn.integers(width // 4, width // 2)), int(drawn.integers(height // 4, height // 2))
    x, y = int(drawn.integers(0, width - w)), int(drawn.integers(0, height - h))
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y : y + h, x : x + w] = 255
    return Image.fromarray(pixels), [x, y, w, h]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Annotations]:
    """Write N images of many shapes, with a rectangle in each."""
    path, boxes = tmp_path_factory.mktemp("coco") / "train.beton", []
    with path.open("wb") as file:
        writer = beton.Writer(file, N)
        for i in range(N):
            height, width = (60 + 3 * i, 100) if i % 3 else (100, 60 + i)
            image, box = marked(height, width, i)
            boxes.append(box)
            writer.add(7 * i, height, width, encode_jpeg(image.convert("L") if i == 5 else image, quality=95))
        writer.finish()
    annotations = Annotations(
        image_ids=7 * np.arange(N),
        firsts=np.arange(N + 1),
        labels=1 + np.arange(N) % 2,
        boxes=np.array(boxes, np.float64),
        areas=np.ones(N),
        crowds=np.zeros(N, bool),
    )
    return path, annotations


def train(stored: tuple[Path, Annotations], **changes: Any) -> CocoLoader:
    settings = {
        "positions": np.arange(N), "batch_size": BATCH, "sides": SIDES, "max_side": MAX_SIDE, "flip": True, "seed": 3,
        "rows": Ranks().rows, "workers": 2, "device": CPU,
    } | changes  # fmt: skip
    return CocoLoader(*stored, settings.pop("positions"), PIXELS, **settings)


def evaluate(stored: tuple[Path, Annotations], **changes: Any) -> CocoEvalSet:
    settings = {"positions": np.arange(N), "side": 64, "max_side": MAX_SIDE, "workers": 2, "device": CPU} | changes
    return CocoEvalSet(*stored, settings.pop("positions"), "test", PIXELS, CATEGORIES, **settings)


def flat(step: Step) -> list[Tensor]:
    images, objects, indices = step
    return [images, indices, *(t for o in objects for t in (o.boxes, o.labels, torch.tensor(o.size)))]


def same(a: list[Step], b: list[Step]) -> bool:
    """Return whether two batches are equal bit for bit."""
    return len(a) == len(b) and all(
        torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(flat(p), flat(q), strict=True)
    )


def rectangle(image: Tensor) -> list[float]:
    """Return x1, y1, x2, y2 of an image's (3, H, W) white part; blurred edges count by their brightness."""
    rows, columns = (image[0] > 127).any(1).nonzero(), (image[0] > 127).any(0).nonzero()
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def test_boxes_are_where_the_objects_are(stored: tuple[Path, Annotations]) -> None:
    """Boxes fit objects in every size, flipped or not. Batches are 0 outside their images."""
    seen: list[tuple[int, int]] = []
    plain = {i: o for _, objects, indices in train(stored, flip=False).epoch(1) for i, o in by_index(objects, indices)}
    flipped = 0
    for images, objects, indices in train(stored).epoch(1):
        assert images.dtype == torch.float32 and images.is_contiguous(memory_format=torch.channels_last)
        assert images.shape[2] % 32 == images.shape[3] % 32 == 0
        assert images.shape[2] - max(o.size[0] for o in objects) < 32
        assert images.shape[3] - max(o.size[1] for o in objects) < 32
        for image, shown, i in zip(images, objects, indices.tolist(), strict=True):
            height, width = shown.size
            np.testing.assert_allclose(shown.boxes[0], rectangle(image), atol=1)
            assert shown.labels.tolist() == [1 + i % 2] and shown.labels.dtype == torch.int64
            assert not image[:, height:].any() and not image[:, :, width:].any()
            assert min(height, width) in SIDES or max(height, width) == MAX_SIDE
            assert plain[i].size == shown.size
            flipped += not torch.equal(plain[i].boxes, shown.boxes)
            seen.append(shown.size)
    assert len(seen) == N and 5 < flipped < N - 5 and len({min(size) for size in seen}) >= 3


def by_index(objects: list[Objects], indices: Tensor) -> list[tuple[int, Objects]]:
    return list(zip(indices.tolist(), objects, strict=True))


def test_pixels_are_nearly_pils(stored: tuple[Path, Annotations]) -> None:
    """Pixels are nearly those of PIL's antialiased bilinear filter, which detectron2 uses."""
    file = beton.read_beton(stored[0])
    for images, objects, indices in train(stored, flip=False).epoch(0):
        for image, shown, i in zip(images, objects, indices.tolist(), strict=True):
            height, width = shown.size
            whole = Image.open(io.BytesIO(bytes(file.jpeg(i)))).convert("RGB")
            expected = np.asarray(whole.resize((width, height), Image.Resampling.BILINEAR), np.float32)
            apart = np.abs(image[:, :height, :width].permute(1, 2, 0).numpy() - expected)
            assert apart.mean() < 0.1 and apart.max() <= 3


def test_bits_depend_on_neither_threads_nor_processes_nor_restarts(stored: tuple[Path, Annotations]) -> None:
    epoch = list(train(stored).epoch(2))
    assert len(epoch) == len(train(stored)) == 7
    assert sorted(torch.cat([indices for *_, indices in epoch]).tolist()) == list(range(N))
    for workers in (1, 5):
        assert same(list(train(stored, workers=workers).epoch(2)), epoch)
    other = train(stored)
    list(other.epoch(0))
    for first in range(9):
        assert same(list(other.epoch(2, first)), epoch[first:])
    for many in (2, 3):  # the last batch has two images: one of three processes has none
        shares = [train(stored, rows=Ranks(r, many).rows) for r in range(many)]
        for step, *parts in zip(epoch, *(share.epoch(2) for share in shares), strict=True):
            images, objects, indices = step
            assert all(part[2].equal(indices) for part in parts)
            assert same([(torch.cat([p[0] for p in parts]), sum((p[1] for p in parts), []), indices)], [step])
    assert not same(list(train(stored).epoch(3)), epoch) and not same(list(train(stored, seed=4).epoch(2)), epoch)


def test_only_the_own_share_is_decoded(stored: tuple[Path, Annotations], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = coco._Images._show

    def show(self: coco._Images, view: coco.View, image: np.ndarray) -> None:
        seen.append(view.position)
        plain(self, view, image)

    monkeypatch.setattr(coco._Images, "_show", show)
    rows = Ranks(1, 2).rows
    mine = [indices[rows(len(indices))] for *_, indices in train(stored, rows=rows, workers=1).epoch(0)]
    assert seen == torch.cat(mine).tolist() and len(seen) < N


def test_a_part_of_the_file(stored: tuple[Path, Annotations]) -> None:
    positions = np.array([2, 3, 11, 12, 25])
    steps = list(train(stored, positions=positions, batch_size=2).epoch(0))
    assert sorted(torch.cat([indices for *_, indices in steps]).tolist()) == [0, 1, 2, 3, 4]
    for images, objects, indices in steps:
        for image, shown, i in zip(images, objects, indices.tolist(), strict=True):
            np.testing.assert_allclose(shown.boxes[0], rectangle(image), atol=1)
            assert shown.labels.tolist() == [1 + positions[i] % 2]


def test_evaluation_loads_every_image_once_and_by_itself(stored: tuple[Path, Annotations]) -> None:
    positions = np.arange(1, 24)
    loader = evaluate(stored, positions=positions)
    steps = list(loader.batches(slice(0, 23)))
    assert (len(loader), len(loader.targets), loader.name) == (23, 23, "test")
    assert [number for *_, ids in steps for number in ids] == (7 * positions).tolist()
    file = beton.read_beton(stored[0])
    for (images, [size], [given], _), i in zip(steps, positions, strict=True):
        assert given == (file.heights[i], file.widths[i]) and (min(size) == 64 or max(size) == MAX_SIDE)
        assert images.shape == (1, 3, *(-(-side // 32) * 32 for side in size))
        x, y, w, h = stored[1].boxes[i]
        back = np.array(rectangle(images[0])) * np.array([given[1] / size[1], given[0] / size[0]] * 2)
        np.testing.assert_allclose(back, [x, y, x + w, y + h], atol=2)
    for many in (2, 5):
        parts = [step for r in range(many) for step in loader.batches(Ranks(r, many).rows(23))]
        assert all(a[0].equal(b[0]) and a[1:] == b[1:] for a, b in zip(parts, steps, strict=True))
    assert not list(loader.batches(slice(4, 4)))
    truth = loader.annotations
    assert [image["id"] for image in truth["images"]] == (7 * positions).tolist()
    assert [a["category_id"] for a in truth["annotations"]] == [CATEGORIES[i % 2].id for i in positions]


def test_epochs_left_early_leave_nothing(stored: tuple[Path, Annotations]) -> None:
    loader = train(stored)
    before, _ = usage()
    for i in range(20):
        for _ in loader.epoch(i):
            break
        with pytest.raises(KeyboardInterrupt):
            for _ in loader.epoch(i, i % 3):
                raise KeyboardInterrupt
        loader.epoch(i)  # never begun
    assert usage()[0] <= before + 2


def test_reading_ahead_is_bounded(stored: tuple[Path, Annotations], monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda shape, **how: (shapes.append(shape), empty(shape, **how))[1])
    steps = train(stored).epoch(0)
    next(steps)
    assert len(shapes) == 3, "the one that is shown and two more"


def test_a_torn_image_is_named(stored: tuple[Path, Annotations], tmp_path: Path) -> None:
    file, path = beton.read_beton(stored[0]), tmp_path / "torn.beton"
    with path.open("wb") as out:
        writer = beton.Writer(out, N)
        for i in range(N):
            content = bytes(file.jpeg(i))
            writer.add(7 * i, int(file.heights[i]), int(file.widths[i]), content[:400] if i == 13 else content)
        writer.finish()
    with pytest.raises(WrongData, match=r"torn\.beton: image 13 cannot be decoded"):
        list(train((path, stored[1])).epoch(0))
    with pytest.raises(WrongData, match=r"torn\.beton: image 13 cannot be decoded"):
        list(evaluate((path, stored[1])).batches(slice(0, N)))


def test_stored_pixels_are_shown_as_those_of_a_jpeg(stored: tuple[Path, Annotations], tmp_path: Path) -> None:
    file, path = beton.read_beton(stored[0]), tmp_path / "pixels.beton"
    with path.open("wb") as out:
        writer = beton.Writer(out, N)
        for i, (height, width) in enumerate(zip(file.heights.tolist(), file.widths.tolist(), strict=True)):
            pixels = decode_jpeg(torch.from_numpy(np.array(file.jpeg(i))), ImageReadMode.RGB).permute(1, 2, 0)
            writer.add(7 * i, height, width, pixels.numpy().tobytes(), beton.PIXELS)
        writer.finish()
    assert same(list(train((path, stored[1])).epoch(0)), list(train(stored).epoch(0)))


# From a prepared folder

RECIPE = Recipe(epochs=1, batch_size=3, lr=0.1, flip=True, sides=(48, 64), max_side=100, eval_side=64)


def source(folder: Path, **dataset: Any) -> CocoSource:
    manifest = CocoManifest.read(folder)
    info = datasets.prepared_dataset("coco", manifest.version, 2, 0, 0, 0)
    return CocoSource(replace(DatasetChoice.of_info(info), **dataset), RECIPE, folder, CPU, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare 10 training images and 3 to evaluate on. Images 0 and 4 show nothing and image 7 a crowd."""
    prepared_folder = tmp_path_factory.mktemp("prepared")
    for name, many in (("train", 10), ("val", 3)):
        images, boxes = [], []
        for i in range(many):
            image, box = marked(60, 80, i)
            save_image(prepared_folder / f"coco/{name}/{i}.jpg", image)
            images.append({"id": i, "file_name": f"{i}.jpg", "height": 60, "width": 80})
            if i not in (0, 4):
                boxes.append({"image_id": i, "category_id": 3, "bbox": box, "iscrowd": int(i == 7)})
        write_instances(prepared_folder / f"coco/annotations/instances_{name}.json", images, boxes)
    for out, option in (("both", ()), ("train", ("--train", "instances_train.json"))):
        if out == "train":
            (prepared_folder / "coco/annotations/instances_val.json").unlink()
        assert (
            run_command(
                "prepare", "coco", "--source", prepared_folder / "coco", "--out", prepared_folder / out, *option
            ).code
            == 0
        )
    return prepared_folder


def evaluated(coco_source: CocoSource, whole: bool = False) -> tuple[str, list[int]]:
    held = coco_source.evaluation(whole)
    return held.name, [image["id"] for image in held.annotations["images"]]


def trained(coco_source: CocoSource) -> list[int]:
    return sorted(torch.cat([i for *_, i in coco_source.training(RECIPE, 0, Ranks().rows).epoch(0)]).tolist())


def test_the_parts_of_a_prepared_folder(folder: Path) -> None:
    both, alone = source(folder / "both"), source(folder / "train")
    assert both.train_targets.tolist() == [0] * 7 and trained(both) == list(range(7))
    assert (evaluated(both), evaluated(alone)) == (("test", [0, 1, 2]), ("train", list(range(10))))
    held_out = source(folder / "both", validation=2, train_subset=3)
    assert held_out.train_targets.tolist() == [0] * 3 and trained(held_out) == [0, 1, 2]
    assert len(source(folder / "both", validation=2).train_targets) == 5
    assert evaluated(held_out) == ("validation", [8, 9]) and evaluated(held_out, whole=True) == ("test", [0, 1, 2])
    assert evaluated(source(folder / "train", train_subset=4)) == ("train", [1, 2, 3, 5])
    assert len(source(folder / "both", train_subset=2).training(RECIPE, 0, Ranks().rows)) == 1


def test_folders_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongData, match="expected 0123: another preparation"):
        source(folder / "both", version="0123")
    held = Annotations.load(folder / "both/train.safetensors", 2)
    other = Annotations.load(folder / "both/train.safetensors", 2)
    other.image_ids[-1] = 99
    for path in (folder / "both").iterdir():
        os.link(path, tmp_path / path.name)
    (tmp_path / "train.safetensors").unlink()
    other.save(tmp_path / "train.safetensors")
    with pytest.raises(WrongData, match=r"train\.safetensors: belongs to other images than train\.beton"):
        source(tmp_path)
    assert held.image_ids[-1] == 9


def by_object(steps: Iterator[Step]) -> int:
    return sum(len(o.labels) for _, objects, _ in steps for o in objects)


def test_coco128_as_prepared(tmp_path: Path) -> None:
    data = Path(os.environ.get("KD_DATA", "nowhere")) / "coco128"
    if not data.is_dir():
        pytest.skip("KD_DATA has no coco128")
    assert run_command("prepare", "coco", "--source", data, "--out", tmp_path / "out").code == 0
    coco_source = source(tmp_path / "out", classes=80)
    loader = coco_source.training(RECIPE, 0, Ranks().rows)
    assert (loader.size, by_object(loader.epoch(0)), len(coco_source.evaluation())) == (126, 929, 128)
    for images, objects, _ in loader.epoch(1, 30):
        assert all((o.boxes >= 0).all() and (o.boxes[:, 2:] <= torch.tensor(o.size[::-1])).all() for o in objects)
        assert images.isfinite().all()

"""Stored images loaded with FFCV and with PIL.

Order and crops are the same for both decoders, for any number of workers and processes, and from any step on. An epoch
that is left early leaves no threads or memory behind.
"""

import functools
import importlib.util
import io
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as tv

from harness import rng
from harness.data import beton
from harness.data.load import beton as stored_loading
from harness.data.load.arrays import WrongData
from harness.data.load.beton import BetonEvalSet
from harness.data.load.crops import as_views, training_views
from harness.data.load.mixing import Mixing
from harness.data.load.view import View
from harness.data.manifest import Manifest
from harness.errors import UserError
from harness.training.distributed.ranks import Ranks
from tests.support.bench import ENVIRONMENT
from tests.support.beton_loading import CPU, PIXELS, N, train_loader, usage
from tests.support.cli import PATIENCE, run_command
from tests.support.images import encode_jpeg, mark_jpeg, save_image

needs_ffcv = pytest.mark.skipif(not importlib.util.find_spec("ffcv"), reason="ffcv is not installed")
backends = pytest.mark.parametrize("backend", [pytest.param("ffcv", marks=needs_ffcv), "pil"])


def scene(width: int, height: int, seed: int) -> Image.Image:
    """Return an image as smooth and detailed as a photograph: a few waves in each channel."""
    drawn = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(width, height)
    waves = [
        sum(np.sin(2 * np.pi * (a * x + b * y) + c) for a, b, c in drawn.uniform(-12, 12, (6, 3))) for _ in range(3)
    ]
    return Image.fromarray((127.5 + 25 * np.stack(waves, axis=2)).clip(0, 255).astype(np.uint8))


def write(path: Path, jpegs: list[bytes]) -> Path:
    with path.open("wb") as file:
        writer = beton.Writer(file, len(jpegs))
        for i, content in enumerate(jpegs):
            width, height = Image.open(io.BytesIO(content)).size
            writer.add(i % 7, height, width, content)
        writer.finish()
    return path


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write N images. Some are grey and some are smaller than the images that loaders return. All but the last few have
    restart markers, without which the same images are in another file.
    """
    drawn = np.random.default_rng(0)
    images = [scene(*map(int, drawn.integers(150, 400, 2)), seed=i) for i in range(N)]
    images[3], images[4], images[5] = scene(64, 64, 3), scene(40, 90, 4), scene(9, 5, 5)
    images[6] = images[6].convert("L")
    folder = tmp_path_factory.mktemp("stored")
    write(folder / "plain.beton", [encode_jpeg(image) for image in images])
    marked = [mark_jpeg(image, 8 if image.mode == "L" else 16) for image in images[:-3]]
    return write(folder / "train.beton", marked + [encode_jpeg(image) for image in images[-3:]])


@pytest.fixture(scope="module", autouse=True)
def _opened_once() -> Iterator[None]:
    """Open each file once, because FFCV then compiles for a second or two."""
    with pytest.MonkeyPatch.context() as patch:
        once = functools.cache(stored_loading._open)
        patch.setattr(stored_loading, "_open", lambda *args: once(*args) if args[2] else once.__wrapped__(*args))
        yield


def test(path: Path, backend: str, **changes: Any) -> BetonEvalSet:
    settings = {
        "positions": np.arange(N), "size": 224, "resize": 256, "crop_first": False, "workers": 2, "device": CPU,
        "backend": backend,
    } | changes  # fmt: skip
    return BetonEvalSet(path, settings.pop("positions"), "test", PIXELS, **settings)


test.__test__ = False  # type: ignore[attr-defined]
Batches = list[tuple[Tensor, ...]]


def same(a: Batches, b: Batches) -> bool:
    """Return whether two batches are equal bit for bit."""
    return len(a) == len(b) and all(
        torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
    )


@backends
def test_waiting_for_images_that_are_not_yet_decoded_is_told(stored: Path, backend: str) -> None:
    """Once for each step, and not while a step is made ready or the images are used."""
    waits, waiting = [], False

    @contextmanager
    def wait() -> Iterator[None]:
        nonlocal waiting
        waits.append(waiting := True)
        yield
        waiting = False

    loader = train_loader(stored, backend)
    for step, _ in enumerate(loader.epoch(0, 1, wait)):
        assert (len(waits), waiting) == (step + 1, False)
    assert len(waits) == len(loader) - 1


def by_index(batches: Iterator[tuple[Tensor, Tensor, Tensor]]) -> dict[int, Tensor]:
    return {i: image for images, _, indices in batches for i, image in zip(indices.tolist(), images, strict=True)}


@backends
def test_order_targets_and_shapes(stored: Path, backend: str) -> None:
    positions = np.arange(N)[::-1][:45].copy()
    loader = train_loader(stored, backend, positions=positions)
    assert len(loader) == 3 and loader.size == 45
    for epoch in (0, 1, -1):
        batches = list(loader.epoch(epoch))
        assert torch.cat([i for _, _, i in batches]).equal(rng.random_permutation(3, epoch, 45))
        assert [len(i) for _, _, i in batches] == [16, 16, 13]
        for images, targets, indices in batches:
            assert images.shape == (len(indices), 3, 96, 96) and images.dtype == torch.float32
            assert images.is_contiguous(memory_format=torch.channels_last)
            assert targets.tolist() == [positions[i] % 7 for i in indices.tolist()]


@backends
def test_bits_depend_on_neither_workers_nor_batches_nor_processes_nor_restarts(stored: Path, backend: str) -> None:
    whole = list(train_loader(stored, backend).epoch(2))
    for workers in (1, 3):
        assert same(list(train_loader(stored, backend, workers=workers).epoch(2)), whole)
    other = train_loader(stored, backend, batch_size=7)
    list(other.epoch(0))
    separate, together = by_index(other.epoch(2)), by_index(iter(whole))
    assert all(separate[i].equal(together[i]) for i in range(N))

    shares = [train_loader(stored, backend, rows=Ranks(r, 3).rows) for r in range(3)]
    for first in (0, 2, 3):  # the last batch has two images for three processes
        for (images, targets, indices), *parts in zip(whole[first:], *(s.epoch(2, first) for s in shares), strict=True):
            assert torch.cat([mine for mine, _, _ in parts]).equal(images)
            assert all(t.equal(targets) and i.equal(indices) for _, t, i in parts)
    assert not list(shares[0].epoch(2, 4))


@backends
def test_mixed_copies_and_views_depend_on_neither_processes_nor_restarts(stored: Path, backend: str) -> None:
    """A process decodes its share, its partners and both views; of each image it sees the same part."""
    crops = {"crop_area": (0.3, 1.0), "flip": True}
    more = {
        "repeats": 3,
        "views": {"strong": View(stream="strong", **crops)},
        "mixing": Mixing(0.8, 1.0, 1.0, 0.5, 7),
        "image_size": 32,
    }
    whole = list(train_loader(stored, backend, **more).epoch(2))
    assert [len(batch[2]) for batch in whole] == [16, 16, 16, 2]
    later = list(train_loader(stored, backend, **more).epoch(2, 3))
    shares = [train_loader(stored, backend, rows=Ranks(r, 3).rows, **more).epoch(2) for r in range(3)]
    for step, (batch, *parts) in enumerate(zip(whole, *shares, strict=True)):
        images, targets, indices, extras = batch
        assert torch.cat([part[0] for part in parts]).equal(images)
        assert torch.cat([part[3].views["strong"] for part in parts]).equal(extras.views["strong"])
        assert not extras.views["strong"].equal(images)
        if step == 3:
            assert later[0][0].equal(images) and later[0][3].target_probs.equal(extras.target_probs)
    plain = train_loader(stored, backend, repeats=3, image_size=32).epoch(2)
    once = by_index(train_loader(stored, backend, image_size=32).epoch(2))
    images, _, indices = next(plain)
    assert all(images[row].equal(once[int(indices[row])]) for row in range(0, 16, 3))
    assert not images[0].equal(images[1])


@needs_ffcv
def test_both_show_the_same(stored: Path) -> None:
    """Order and crops are equal and pixels nearly so; a flip or a shift by a pixel would be far off."""
    seen = 0
    for (a, t, i), (b, u, j) in zip(
        train_loader(stored, "ffcv").epoch(0), train_loader(stored, "pil").epoch(0), strict=True
    ):
        assert t.equal(u) and i.equal(j)
        apart = (a - b).abs().mean(dim=(1, 2, 3))
        large = ~torch.isin(i, torch.tensor([3, 4, 5]))
        assert apart[large].max() < 4 and apart.max() < 16
        seen += len(i)
    assert seen == N


@backends
def test_a_crop_has_the_pixels_of_the_whole_image(stored: Path, backend: str) -> None:
    plain = stored.with_name("plain.beton")
    for size in (96, 224):
        assert same(*(list(train_loader(path, backend, image_size=size).epoch(2)) for path in (stored, plain)))
    for crop_first in (False, True):
        assert same(
            *(list(test(path, backend, crop_first=crop_first).batches(slice(None))) for path in (stored, plain))
        )


@backends
def test_no_more_than_the_crop_is_decoded(tmp_path: Path, backend: str) -> None:
    """Damage elsewhere does not show. Of all of the image, each decoder would say that it is damaged, or show it."""
    whole = mark_jpeg(scene(320, 240, 0))
    damaged = bytearray(whole)
    damaged[-len(whole) // 4 : -2] = b"\xff\xd0" + bytes(len(whole) // 4 - 4)
    shown = []
    for name, jpeg in (("whole", whole), ("damaged", bytes(damaged))):
        path = write(tmp_path / f"{name}.beton", [jpeg])
        views = as_views(np.zeros(2, np.int64), np.array([[0, 0, 120, 160, 0], [10, 20, 60, 80, 1]]), 96)
        with closing(stored_loading._open(path, 1, backend).batches(views, 2, 96)) as batches:
            shown.append(next(batches).clone())
    assert torch.equal(*shown)


@needs_ffcv
def test_crops_are_resized_as_opencv_does_it(stored: Path) -> None:
    """FFCV lets numba round sums of products freely in what it compiles, which must not reach the resizing."""
    from harness.data.load import ffcv_decoder

    file = beton.read_beton(stored)
    every, counts = np.arange(N), {True: 0, False: 0}
    for epoch in range(3):
        views = as_views(every, training_views(0, epoch, every, file.heights, file.widths), 160)
        shown = torch.cat([b.clone() for b in ffcv_decoder.FfcvImages(stored, 1).batches(views, N, 160)]).numpy()
        for i, image in enumerate(shown):
            whole, expected = np.empty((file.heights[i], file.widths[i], 3), np.uint8), np.empty_like(image)
            assert not ffcv_decoder._decode_jpeg(np.array(file.jpeg(i)), whole.reshape(-1), *whole.shape[:2])
            top, left, height, width, flip = (
                int(views[i][name]) for name in ("top", "left", "height", "width", "flip")
            )
            ffcv_decoder.resize_crop(whole, top, top + height, left, left + width, expected)
            assert np.array_equal(image, expected[:, ::-1] if flip else expected), views[i]
            counts[bool(ffcv_decoder.can_shrink(height, width, 160, 160))] += 1
    assert min(counts.values()) > 20


@pytest.mark.skipif(not os.environ.get("KD_DATA"), reason="needs KD_DATA")
@needs_ffcv
@pytest.mark.parametrize("crop_first", [False, True])
def test_photographs_look_the_same_to_both(tmp_path: Path, crop_first: bool) -> None:
    """Differences are those that docs/imagenet.md states."""
    files = sorted((Path(os.environ["KD_DATA"]) / "imagenet_sample_125").rglob("*.JPEG"))
    from harness.data.manifest import Settings
    from harness.data.prepare.encode import encode_image as as_stored

    how = Settings(max_side=400, quality=90, restart=1)
    path = write(tmp_path / "a.beton", [as_stored(f.read_bytes(), f.name, how).jpeg for f in files[::3]])
    every = np.arange(len(files[::3]))
    parts = [test(path, b, positions=every, crop_first=crop_first).batches(slice(None)) for b in ("ffcv", "pil")]
    if crop_first:
        parts = [train_loader(path, b, positions=every, image_size=224).epoch(0) for b in ("ffcv", "pil")]
    apart = torch.cat([(a[0] - b[0]).abs().mean(dim=(1, 2, 3)) for a, b in zip(*parts, strict=True)])
    assert 0.2 < apart.mean() < 2.5 and apart.max() < 8


def test_pils_training_images_are_torchvisions(stored: Path) -> None:
    file = beton.read_beton(stored)
    views = training_views(3, 1, np.arange(N), file.heights, file.widths)
    for i, image in by_index(train_loader(stored, "pil").epoch(1)).items():
        top, left, height, width, flip = views[i].tolist()
        expected = tv.resized_crop(
            Image.open(io.BytesIO(file.jpeg(i))).convert("RGB"), top, left, height, width, [96, 96]
        )
        expected = tv.hflip(expected) if flip else expected
        assert torch.equal(tv.pil_to_tensor(expected).float(), image)


@backends
def test_evaluation_shows_what_torchvision_does(stored: Path, backend: str) -> None:
    file = beton.read_beton(stored)
    loader = test(stored, backend)
    assert loader.name == "test" and len(loader) == N and loader.targets.tolist() == [i % 7 for i in range(N)]
    ((images, targets),) = loader.batches(slice(None))
    assert targets.equal(loader.targets)
    for i in range(N):
        whole = Image.open(io.BytesIO(file.jpeg(i))).convert("RGB")
        expected = tv.pil_to_tensor(tv.center_crop(tv.resize(whole, 256), 224)).float()
        apart = (images[i] - expected).abs().mean()
        assert torch.equal(images[i], expected) if backend == "pil" else apart < (4 if i not in (3, 4, 5) else 16)


@needs_ffcv
def test_evaluation_with_the_crop_first_is_ffcvs_bit_for_bit(stored: Path) -> None:
    images_read = torch.cat([images for images, _ in test(stored, "ffcv", crop_first=True).batches(slice(None))])
    from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor

    pipeline = [CenterCropRGBImageDecoder((224, 224), ratio=224 / 256), ToTensor()]
    theirs = Loader(
        str(stored), batch_size=N, num_workers=1, order=OrderOption.SEQUENTIAL, drop_last=False,
        pipelines={"image": pipeline, "label": None, "index": None},
    )  # fmt: skip
    ((expected,),) = list(theirs)
    assert torch.equal(images_read, expected.permute(0, 3, 1, 2).float())


@backends
def test_evaluation_is_shared_out_in_file_order(stored: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.data.load.beton.EVAL_BATCH", 8)
    positions = np.array([40, 2, 3, 30, 17, 6, 8, 9, 10, 11, 12, 1, 0])
    loader = test(stored, backend, positions=positions, size=64, resize=64)
    whole = list(loader.batches(slice(0, 13)))
    assert torch.cat([t for _, t in whole]).tolist() == [p % 7 for p in positions]
    parts = [list(loader.batches(Ranks(r, 2).rows(13))) for r in range(2)]
    assert [sum(len(t) for _, t in part) for part in parts] == [7, 6]
    images, targets = (torch.cat([batch[k] for batch in parts[0] + parts[1]]) for k in (0, 1))
    assert same([(images, targets)], [(torch.cat([i for i, _ in whole]), torch.cat([t for _, t in whole]))])
    assert not list(loader.batches(slice(5, 5)))


@backends
def test_resolution_grows_at_the_epochs_named(stored: Path, backend: str) -> None:
    loader = train_loader(stored, backend, image_size=((0, 32), (2, 48), (3, 64)))
    shapes = {epoch: next(loader.epoch(epoch))[0].shape[2:] for epoch in (-2, 0, 1, 2, 3, 9, 1)}
    assert shapes == {epoch: (side, side) for epoch, side in ((-2, 32), (0, 32), (1, 32), (2, 48), (3, 64), (9, 64))}
    assert same(list(loader.epoch(2)), list(train_loader(stored, backend, image_size=48).epoch(2)))


@backends
def test_epochs_left_early_leave_nothing(stored: Path, backend: str) -> None:
    loader = train_loader(stored, backend)

    def left() -> None:
        for i in range(25):
            for _ in loader.epoch(i):
                break
            with pytest.raises(KeyboardInterrupt):
                for _ in loader.epoch(i, i % 3):
                    raise KeyboardInterrupt
            loader.epoch(i)  # never begun

    left()  # the allocator and numba's threads settle
    threads, kilobytes = usage()
    left()
    assert usage()[0] <= threads + 4, "75 epochs were left; libraries start a thread of their own now and then"
    assert usage()[1] - kilobytes < 8_000
    whole = by_index(loader.epoch(0))
    assert len(whole) == N


@backends
def test_a_torn_image_is_named(stored: Path, tmp_path: Path, backend: str) -> None:
    file = beton.read_beton(stored)
    images = [file.jpeg(i).tobytes() for i in range(20)]
    torn = images.copy()
    torn[13] = images[13][: len(images[13]) // 2]
    broken = write(tmp_path / "broken.beton", torn)
    with pytest.raises(WrongData, match=r"broken\.beton: image 13 cannot be decoded"):
        list(train_loader(broken, backend, positions=np.arange(20)).epoch(0))
    with pytest.raises(WrongData, match=r"broken\.beton: image 13 cannot be decoded"):
        list(test(broken, backend, positions=np.arange(20)).batches(slice(None)))
    assert len(list(train_loader(broken, backend, positions=np.arange(13)).epoch(0))) == 1


@backends
def test_an_image_that_is_odd_and_whole_is_shown(stored: Path, tmp_path: Path, backend: str) -> None:
    """A file with bytes between two segments is loaded, as ImageNet has some; libjpeg warns of them."""
    file = beton.read_beton(stored)
    images = [file.jpeg(i).tobytes() for i in range(20)]
    odd = [image.replace(b"\xff\xda", b"\x11\x22\xff\xda", 1) for image in images]
    positions = np.arange(20)
    batches = list(train_loader(write(tmp_path / "odd.beton", odd), backend, positions=positions).epoch(0))
    assert same(
        batches, list(train_loader(write(tmp_path / "even.beton", images), "pil", positions=positions).epoch(0))
    )


@needs_ffcv
def test_what_fails_in_a_thread_is_raised(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = train_loader(stored, "ffcv")
    from harness.data.load import ffcv_decoder

    show: Callable[..., None] = ffcv_decoder._show_some
    calls = itertools.count()

    def fails_later(*args: Any) -> None:
        if next(calls) == 5:
            raise MemoryError("no room")
        show(*args)

    monkeypatch.setattr(ffcv_decoder, "_show_some", fails_later)
    with pytest.raises(MemoryError, match="no room"):
        list(loader.epoch(0))


@backends
def test_torchs_threads_are_not_changed(stored: Path, backend: str) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            list(train_loader(stored, backend, workers=3 - threads).epoch(0))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_the_loader_is_chosen(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kind() -> str:
        return type(train_loader(stored, None)._images).__name__

    monkeypatch.delenv("KD_LOADER", raising=False)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "ffcv" else find_spec(name, *a))
    assert kind() == "PilImages"
    monkeypatch.setenv("KD_LOADER", "fcv")
    with pytest.raises(UserError, match="KD_LOADER: unknown loader 'fcv'; did you mean 'ffcv'"):
        kind()
    if find_spec("ffcv"):
        monkeypatch.setattr(importlib.util, "find_spec", find_spec)
        monkeypatch.delenv("KD_LOADER")
        assert kind() == "FfcvImages"
        monkeypatch.setenv("KD_LOADER", "pil")
        assert kind() == "PilImages"


@backends
def test_a_process_ends_in_the_middle_of_an_epoch(stored: Path, backend: str) -> None:
    """The process exits cleanly. Importing the module imports no decoder."""
    code = f"""
import sys
from pathlib import Path
from harness.data.load import beton
assert not {{"ffcv", "numba", "PIL"}} & set(sys.modules)
from tests.support.beton_loading import train_loader
kept = train_loader(Path({str(stored)!r}), {backend!r}).epoch(0)
next(kept)
if "ffcv" in sys.modules:
    from ffcv.fields.rgb_image import IMAGE_MODES
    from numba.typed import Dict
    assert type(IMAGE_MODES) is dict and Dict is not dict, "nothing is compiled for two constants"
sys.exit(7)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, timeout=PATIENCE, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (7, "")


@backends
def test_pixels_are_stored_without_loss(tmp_path: Path, backend: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)  # what a JPEG would not keep
    for image, name in zip(pixels, ("a.png", "b.bmp", "c.tiff"), strict=True):
        save_image(tmp_path / "tree/val/ant" / name, Image.fromarray(image), name.split(".")[1].upper())
    save_image(tmp_path / "tree/val/ant/d.jpg", scene(16, 16, 0))
    out = tmp_path / "out"
    options = ("prepare", "imagefolder", "--source", tmp_path / "tree", "--out", out, "--workers", 1)
    assert run_command(*options, "--lossless").code == 0
    assert Manifest.read(out).test.counts == {"lossless": 3, "not_jpeg": 3, "kept": 1, "ignored": 0}
    shown = BetonEvalSet(
        out / "val.beton", np.arange(4), "test", PIXELS,
        size=16, resize=16, crop_first=False, workers=1, device=CPU, backend=backend,
    )  # fmt: skip
    ((images, _),) = shown.batches(slice(0, 4))
    assert np.array_equal(images[:3].permute(0, 2, 3, 1).numpy(), pixels)
    assert "prepared differently: lossless True, not False" in run_command(*options).error

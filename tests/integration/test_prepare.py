"""`prepare` through its command line: how every kind of file is stored, and resuming after interruptions."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from harness.data import beton
from harness.data.manifest import Manifest, Settings
from harness.data.prepare import dataset as prepare_dataset
from harness.data.prepare import imagefolder, layouts
from harness.data.prepare import part as prepare_part
from harness.data.prepare.resumable import Chunk, Sample, Unfinished
from harness.store.locks import Lock
from tests.support.bench import until
from tests.support.cli import REPO, CommandResult, process, run_command
from tests.support.disks import tmpfs
from tests.support.images import encode_jpeg, mark_jpeg, picture, save_image

FILES = ("train.beton", "val.beton", "manifest.json")


def prepare(source: Path, out: Path, *options: object, dataset: str = "imagefolder") -> CommandResult:
    return run_command("prepare", dataset, "--source", source, "--out", out, "--workers", 1, *options)


def prepared(source: Path, out: Path, *options: object, dataset: str = "imagefolder") -> Manifest:
    result = prepare(source, out, *options, dataset=dataset)
    assert result.code == 0, result.err
    return Manifest.read(out)


def seen_by(tree: Path, out: Path, max_side: int, workers: int, skip_unreadable: bool) -> list[int]:
    """Prepare in this process; return the numbers of source files that were done, as they are shown."""
    seen: list[int] = []
    settings = Settings(max_side=max_side, quality=90, restart=1)
    how = settings, workers, skip_unreadable, lambda part, done, _: seen.append(done)
    imagefolder.prepare_imagefolder(prepare_part.Request("imagefolder", tree, out, *how))
    return seen


def contents(out: Path) -> dict[str, bytes]:
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    return {name: (out / name).read_bytes() for name in FILES}


def make_tree(folder: Path) -> Path:
    """Make three classes of 8 + 2 images of 60 x 40 pixels."""
    for label, name in enumerate(("ant", "bee", "cat")):
        for i in range(10):
            save_image(folder / ("val" if i >= 8 else "train") / name / f"{i}.JPEG", picture(40, 60, 10 * label + i))
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_part, "CHUNK", 3)


def test_real_images_keep_their_bytes(tmp_path: Path) -> None:
    data = Path(os.environ.get("KD_DATA", "nowhere")) / "tiny_imagenet_20"
    if not data.is_dir():
        pytest.skip("KD_DATA has no tiny_imagenet_20")
    wnids = sorted(p.name for p in (data / "train").iterdir())[:3]
    for part, many in (("train", 30), ("val", 5)):
        for wnid in wnids:
            (tmp_path / "tree" / part / wnid).mkdir(parents=True)
            for file in sorted((data / part / wnid).iterdir())[:many]:
                shutil.copy2(file, tmp_path / "tree" / part / wnid)
    result = process("-m", "harness.prepare", "imagefolder", "--source", "tree", "--out", "out", "--json", cwd=tmp_path)
    assert result.code == 0, result.err
    summary, manifest = json.loads(result.out), Manifest.read(tmp_path / "out")
    assert (summary["version"], summary["classes"], summary["folder"]) == (manifest.version, 3, "out")
    assert manifest.classes == tuple(wnids) and manifest.train and manifest.train.per_class_min == 30
    for part, folder in ((manifest.train, "train"), (manifest.test, "val")):
        held = beton.read_beton(tmp_path / "out" / part.file)
        names = sorted((tmp_path / "tree" / folder).rglob("*.JPEG"))
        assert part.images == part.counts["kept"] == len(held) == len(names)
        for i, name in enumerate(names):
            assert bytes(held.jpeg(i)) == name.read_bytes()
            assert (manifest.classes[held.labels[i]], held.indices[i]) == (name.parent.name, i)
            assert (held.widths[i], held.heights[i]) == Image.open(name).size


def test_again_does_nothing(tree: Path, tmp_path: Path) -> None:
    prepared(tree, tmp_path / "out")
    times = [(tmp_path / "out" / name).stat().st_mtime_ns for name in FILES]
    result = prepare(tree, tmp_path / "out")
    assert result.code == 0 and f"{tmp_path}/out: already prepared, nothing to do\n" == result.err
    assert [(tmp_path / "out" / name).stat().st_mtime_ns for name in FILES] == times
    assert prepare(tree, tmp_path / "out", "--max-side", 30).error.endswith(
        "prepared differently: max_side 400, not 30; choose another --out (source is a hash of the source files' names "
        "and sizes)"
    )
    (tree / "val/cat/9.JPEG").unlink()
    assert "prepared differently: source " in prepare(tree, tmp_path / "out").error
    (tmp_path / "out/val.beton").write_bytes(b"torn")
    assert "val.beton: has 4 bytes, manifest.json states" in prepare(tree, tmp_path / "out").error


def cmyk(path: Path) -> None:
    save_image(path, picture(20, 30).convert("CMYK"))


def damaged_exif(path: Path) -> None:
    save_image(path, picture(20, 30), exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x03\0\0\0abc\0")


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save_image(path, picture(20, 30), exif=exif)


def deep(path: Path) -> None:
    save_image(path, Image.fromarray(np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)), "PNG")


def of_mode(mode: str, kind: str = "PNG") -> Callable[[Path], None]:
    return lambda path: save_image(path, picture(20, 30).convert(mode), kind)


# name, function that makes it, its counts in the manifest
ODD: list[tuple[str, Callable[[Path], None], set[str]]] = [
    ("cmyk.JPEG", cmyk, {"converted", "cmyk"}),
    ("damaged-exif.JPEG", damaged_exif, {"kept"}),
    ("deep.png", deep, {"converted", "not_jpeg", "greyscale", "deep"}),
    ("grey.JPEG", of_mode("L", "JPEG"), {"kept", "greyscale"}),
    ("large.JPEG", lambda path: save_image(path, picture(301, 600)), {"resized"}),
    ("large.png", lambda path: save_image(path, picture(600, 1), "PNG"), {"resized", "not_jpeg"}),
    (
        "of-a-camera.JPEG",
        lambda path: save_image(path, picture(20, 30), "MPO", save_all=True, append_images=[picture(9, 9)]),
        {"kept"},
    ),
    ("palette.png", lambda path: save_image(path, picture(20, 30).quantize(200), "PNG"), {"converted", "not_jpeg"}),
    ("png.JPEG", of_mode("RGB"), {"converted", "not_jpeg", "misnamed"}),
    ("progressive.jpg", lambda path: save_image(path, picture(20, 30), progressive=True), {"kept"}),
    ("rgba.png", of_mode("RGBA"), {"converted", "not_jpeg", "transparent"}),
    ("rotated.JPEG", rotated, {"kept", "oriented"}),
    ("two-level.png", of_mode("1"), {"converted", "not_jpeg", "greyscale"}),
    ("webp.webp", of_mode("RGB", "WEBP"), {"converted", "not_jpeg"}),
]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("name, make, kinds", ODD, ids=[name for name, *_ in ODD])
def test_odd_files(tmp_path: Path, name: str, make: Callable[[Path], None], kinds: set[str]) -> None:
    """Each file is stored as torchvision's ImageFolder would load it."""
    path = tmp_path / "tree/val/a" / name
    make(path)
    (path.parent / "notes.txt").write_text("x")
    manifest = prepared(tmp_path / "tree", tmp_path / "out", "--quality", 95)
    assert manifest.train is None and manifest.test.images == 1
    marked = {"marked"} if kinds & {"converted", "resized"} else set()
    assert {kind for kind, n in manifest.test.counts.items() if n} == {*kinds, *marked, "ignored"}
    held = beton.read_beton(tmp_path / "out/val.beton")
    stored = Image.open(io.BytesIO(bytes(held.jpeg(0))))
    assert stored.size == (held.widths[0], held.heights[0])
    if "kept" in kinds:
        assert bytes(held.jpeg(0)) == path.read_bytes()
        return
    assert stored.mode == "RGB" and stored.layer[0][1:3] == (2, 2), "4:2:0"
    if "resized" in kinds:
        assert stored.size == {"large.JPEG": (400, 201), "large.png": (1, 400)}[name]
        return
    expected = np.asarray(Image.open(path).convert("RGB"), np.int64)
    if "deep" in kinds:
        expected = np.stack([np.asarray(Image.open(path), np.int64) // 256] * 3, -1)
    difference = np.abs(np.asarray(stored, np.int64) - expected).mean()
    assert difference < 8, difference


def break_some(tree: Path) -> None:
    (tree / "train/ant/0.JPEG").write_bytes((tree / "train/ant/0.JPEG").read_bytes()[:-300])
    (tree / "train/bee/3.JPEG").write_bytes(b"")
    (tree / "val/cat/8.JPEG").write_bytes(b"<html>404</html>")
    (tree / "val/cat/9.JPEG").unlink()
    (tree / "val/cat/9.JPEG").symlink_to("nowhere")


def test_unreadable_files(tree: Path, tmp_path: Path) -> None:
    break_some(tree)
    error = prepare(tree, tmp_path / "out").error
    assert error.startswith("4 files are unreadable: train/ant/0.JPEG: image file is truncated (")
    assert "; train/bee/3.JPEG: empty file; val/cat/8.JPEG: not an image of a known format (JPEG, " in error
    assert "; val/cat/9.JPEG: No such file or directory. Repair them, or leave them out with --skip-unreadable" in error
    assert [p.name for p in (tmp_path / "out").iterdir()] == [".prepare"]

    manifest = prepared(tree, tmp_path / "out", "--skip-unreadable")
    assert [u.file for u in manifest.unreadable] == [
        "train/ant/0.JPEG", "train/bee/3.JPEG", "val/cat/8.JPEG", "val/cat/9.JPEG"
    ]  # fmt: skip
    assert manifest.train and (manifest.train.images, manifest.train.counts["unreadable"]) == (22, 2)
    assert (manifest.train.per_class_min, manifest.test.images, manifest.test.per_class_min) == (7, 4, 0)
    held = beton.read_beton(tmp_path / "out/train.beton")
    assert held.indices.tolist() == list(range(22)) and np.bincount(held.labels).tolist() == [7, 7, 8]
    contents(tmp_path / "out")


def test_many_unreadable_files_are_listed_in_a_file(tree: Path, tmp_path: Path) -> None:
    for i in range(8):
        for name in ("ant", "bee"):
            (tree / f"train/{name}/{i}.JPEG").write_bytes(b"")
    error = prepare(tree, tmp_path / "out").error
    assert "16 files are unreadable" in error and error.count("empty file") == 10
    listed = (tmp_path / "out/.prepare/unreadable.txt").read_text().splitlines()
    assert listed[-1] == "train/bee/7.JPEG: empty file" and len(listed) == 16


def test_a_mended_file_is_read_again(tree: Path, tmp_path: Path, small_chunks: None) -> None:
    good = (tree / "train/bee/3.JPEG").read_bytes()
    prepared(tree, tmp_path / "undisturbed")
    (tree / "train/bee/3.JPEG").write_bytes(b"")
    assert "1 file is unreadable" in prepare(tree, tmp_path / "out").error
    (tree / "train/bee/3.JPEG").write_bytes(good)
    prepared(tree, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_a_file_whose_permissions_changed_is_read_again(tree: Path) -> None:
    before = layouts.found_file(tree, "train/bee/3.JPEG", 1)
    time.sleep(0.02)  # the clock of a file system may tick every 10 ms
    (tree / "train/bee/3.JPEG").chmod(0o600)
    assert layouts.found_file(tree, "train/bee/3.JPEG", 1).modified > before.modified


def test_a_file_begun_for_fewer_images_is_begun_again(tmp_path: Path) -> None:
    """Its images begin right behind a table with a row per image, and a larger table reaches into them."""
    chunk = Chunk([Sample(0, 4, 4, 3, "ab")], {}, [])
    with closing(Unfinished(tmp_path / "x", 1000, ["key"])) as first:
        first.add(chunk, [b"jpg"])
    with closing(Unfinished(tmp_path / "x", 1001, ["key"])) as same_place:
        assert same_place.chunks == 1
    with closing(Unfinished(tmp_path / "x", 300_000, ["key"])) as larger:
        assert larger.chunks == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--size", 288), "eval_size must be at most eval_resize, found 288 > 256"),
        (("--size", 4000), "Invalid value for '--size'"),
    ],
)
def test_a_crop_that_no_image_has_is_refused(
    tree: Path, tmp_path: Path, options: tuple[object, ...], error: str
) -> None:
    prepared(tree, tmp_path / "out")
    named = ("--dataset", "imagefolder", "--data", tmp_path, "--folder", "out", "--weights", tree / "train/ant/0.JPEG")
    assert error in run_command("evaluate", *named, "--model", "torchvision:resnet18", *options).error


def test_folders_in_class_folders(tmp_path: Path) -> None:
    """Images in folders such as Tiny ImageNet's are ordered by name, not as the disk lists them."""
    names = [f"ant/{inside}.png" for inside in ("z", "q/1", "b/2", "b/1", "x/1", "a/1", "m/1", "c/1")]
    for i, name in enumerate(names):
        save_image(tmp_path / "tree/val" / name, picture(10, 10 + i), "PNG")
    prepared(tmp_path / "tree", tmp_path / "out")
    file = [names[width - 10] for width in beton.read_beton(tmp_path / "out/val.beton").widths]
    assert file == ["ant/z.png", *sorted(names[1:])]


def test_any_number_of_workers_any_place(tree: Path, tmp_path: Path, small_chunks: None) -> None:
    one, three = tmp_path / "one", tmp_path / "elsewhere/three"
    prepared(tree, one, "--workers", 1)
    shutil.copytree(tree, tmp_path / "copy")
    prepared(tmp_path / "copy", three, "--workers", 3)
    assert contents(one) == contents(three)


def test_restart_markers_are_no_part_of_the_version(tree: Path, tmp_path: Path) -> None:
    """The pixels are the same, and a folder from before has none."""
    options = "--max-side", 50
    marked, plain = (
        prepared(tree, tmp_path / "marked", *options),
        prepared(tree, tmp_path / "plain", *options, "--restart", 0),
    )
    assert marked.version == plain.version and (marked.settings.restart, plain.settings.restart) == (1, 0)
    assert marked.test.counts.pop("marked") == marked.test.counts["resized"] and marked.test.counts == plain.test.counts
    held, without = (beton.read_beton(tmp_path / name / "val.beton") for name in ("marked", "plain"))
    for i in range(len(held)):
        assert np.array_equal(*(np.asarray(Image.open(io.BytesIO(file.jpeg(i)))) for file in (held, without)))
    again = prepare(tree, tmp_path / "plain", *options)
    assert again.code == 0 and again.err.endswith(
        f"note: {tmp_path}/plain has no restart markers, by which crops load faster; another --out would have them\n"
    )
    assert "restart 1, not 0" in prepare(tree, tmp_path / "marked", *options, "--restart", 0).error


def test_the_version_is_of_the_content(tree: Path, tmp_path: Path) -> None:
    """A renamed file keeps the version; a changed pixel, label or class name changes it."""
    version = prepared(tree, tmp_path / "0").version
    (tree / "train/ant/0.JPEG").rename(tree / "train/ant/00.JPEG")
    assert prepared(tree, tmp_path / "1").version == version
    others = [prepared(tree, tmp_path / "2", "--max-side", 50).version]
    save_image(tree / "train/ant/00.JPEG", picture(40, 60, 77))
    others.append(prepared(tree, tmp_path / "3").version)
    (tree / "train/ant/7.JPEG").rename(tree / "train/bee/00.JPEG")  # between the same neighbours
    others.append(prepared(tree, tmp_path / "4").version)
    for part in ("train", "val"):
        (tree / part / "ant").rename(tree / part / "ape")
    others.append(prepared(tree, tmp_path / "5").version)
    assert len({version, *others}) == 5


class Running:
    """A command that has stored some of six chunks and waits for permission to go on."""

    def __init__(self, folder: Path):
        self.tree, self.out, large = folder / "tree", folder / "out", io.BytesIO()
        picture(200, 300).save(large, "JPEG")
        for part, many in (("train", 1500), ("val", 3)):
            (self.tree / part / "a").mkdir(parents=True)
            for i in range(many):
                (self.tree / part / "a" / f"{i}.JPEG").write_bytes(large.getvalue())
        args = ["imagefolder", "--source", self.tree, "--out", self.out, "--workers", "1", "--max-side", "64"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "harness.prepare", *map(str, args)],
            env={**os.environ, "PYTHONPATH": str(REPO)},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        journal = self.out / ".prepare/train.journal"
        until(lambda: journal.exists() and journal.stat().st_size)
        self.process.send_signal(signal.SIGSTOP)
        self.chunks = len(journal.read_bytes().splitlines())
        assert 0 < self.chunks < 6
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.workers = [int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
        assert len(self.workers) == 1

    def ended(self) -> tuple[int, str]:
        """Return exit code and stderr once the workers have ended too."""
        code = self.process.wait()
        until(lambda: not any(map(is_alive, self.workers)))
        assert [p.name for p in self.out.iterdir()] == [".prepare"]
        assert self.process.stderr
        return code, self.process.stderr.read()

    def clean_up(self) -> None:
        for pid in (self.process.pid, *self.workers):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    def again(self, out: Path) -> int:
        """Run the same command in this process; return the number of source files that were already stored."""
        return seen_by(self.tree, out, 64, 2, False)[0]


@pytest.fixture
def start() -> Iterator[Callable[[Path], Running]]:
    started: list[Running] = []

    def begin(folder: Path) -> Running:
        started.append(Running(folder))
        return started[-1]

    yield begin
    for running in started:
        running.clean_up()


def test_killed_at_any_time(tmp_path: Path, start: Callable[[Path], Running]) -> None:
    """After a kill no worker runs and no file has its final name; the resumed command gives the same bytes."""
    running = start(tmp_path)
    assert "another process is preparing into it" in prepare(running.tree, running.out, "--max-side", 64).error
    running.process.kill()
    assert running.ended()[0] == -signal.SIGKILL
    assert running.again(running.out) == running.chunks * prepare_part.CHUNK
    assert running.again(tmp_path / "undisturbed") == 0
    assert contents(running.out) == contents(tmp_path / "undisturbed")


def test_ctrl_c_and_a_worker_that_dies(tmp_path: Path, start: Callable[[Path], Running]) -> None:
    running = start(tmp_path / "1")
    ignored = re.search(r"SigIgn:\s*(\w+)", Path(f"/proc/{running.workers[0]}/status").read_text())
    assert ignored and int(ignored[1], 16) >> (signal.SIGINT - 1) & 1, "a terminal sends it to the workers too"
    os.killpg(running.process.pid, signal.SIGINT)
    running.process.send_signal(signal.SIGCONT)
    assert running.ended() == (130, "interrupted; the same command resumes here\n")
    running = start(tmp_path / "2")
    os.kill(running.workers[0], signal.SIGKILL)
    running.process.send_signal(signal.SIGCONT)
    code, err = running.ended()
    assert code == 2 and err.startswith("error: a worker process was killed, perhaps for lack of memory; the same")
    assert running.again(running.out) >= running.chunks * prepare_part.CHUNK


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


TORN: dict[str, Callable[[Path], object]] = {
    "half a line": lambda scratch: os.truncate(scratch / "train.journal", 700),
    "a line of nothing": lambda scratch: (scratch / "train.journal").write_bytes(b"\0\0\n"),
    "images not there": lambda scratch: os.truncate(scratch / "train.beton", beton.PAGE + 2000),
    "more images than noted": lambda scratch: (scratch / "train.beton").open("ab").write(b"x" * 5000),
    "no images": lambda scratch: (scratch / "train.beton").unlink(),
    "no journal": lambda scratch: (scratch / "train.journal").unlink(),
    "another's journal": lambda scratch: shutil.copy(scratch / "val.journal", scratch / "train.journal"),
    "killed while naming": lambda scratch: (scratch / "train.beton").rename(scratch.parent / "train.beton"),
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, bytes]]:
    """Return a tree with unreadable files, a folder that lacks only those, and the folder it should become."""
    folder = tmp_path_factory.mktemp("broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare_part, "CHUNK", 3)
        tree = make_tree(folder / "tree")
        break_some(tree)
        prepared(tree, folder / "undisturbed", "--skip-unreadable")
        assert prepare(tree, folder / "left").code == 2
    return tree, folder / "left", contents(folder / "undisturbed")


@pytest.mark.parametrize("tear", TORN.values(), ids=TORN)
def test_every_kind_of_leftover(
    broken: tuple[Path, Path, dict[str, bytes]], tmp_path: Path, small_chunks: None, tear: Callable[[Path], object]
) -> None:
    tree, left, undisturbed = broken
    shutil.copytree(left, tmp_path / "out")
    tear(tmp_path / "out/.prepare")
    prepared(tree, tmp_path / "out", "--skip-unreadable")
    assert contents(tmp_path / "out") == undisturbed


def test_killed_while_naming_is_all_done(
    broken: tuple[Path, Path, dict[str, bytes]], tmp_path: Path, small_chunks: None
) -> None:
    tree, left, _ = broken
    shutil.copytree(left, tmp_path / "out")
    TORN["killed while naming"](tmp_path / "out/.prepare")
    assert seen_by(tree, tmp_path / "out", 400, 1, True) == [24, 6]


def test_other_settings_begin_again(
    broken: tuple[Path, Path, dict[str, bytes]], tmp_path: Path, small_chunks: None
) -> None:
    tree, left, _ = broken
    shutil.copytree(left, tmp_path / "out")
    prepared(tree, tmp_path / "out", "--skip-unreadable", "--max-side", 20)  # less than is there
    prepared(tree, tmp_path / "undisturbed", "--skip-unreadable", "--max-side", 20)
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_what_is_in_the_way(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "train.beton").write_bytes(b"somebody's")
    assert (
        prepare(tree, out).error == f"{out}/train.beton: exists already, without a manifest.json; choose another --out"
    )
    assert (out / "train.beton").read_bytes() == b"somebody's"
    lock = Lock(tmp_path / "busy/.prepare/lock")
    assert lock.acquire()
    assert prepare(tree, tmp_path / "busy").error == f"--out {tmp_path}/busy: another process is preparing into it"
    lock.release()
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert "are needed and 0.00 GB are free on its disk" in prepare(tree, tmp_path / "full").error
    assert not (tmp_path / "full").exists()


def test_a_disk_that_fills_up(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_chunks: None) -> None:
    prepared(tree, tmp_path / "undisturbed")
    with tmpfs(tmp_path / "out", "size=200k"):
        monkeypatch.setattr(prepare_dataset, "MARGIN", 0)  # as if the estimate were far too low
        (tmp_path / "out/filler").write_bytes(b"x" * (170 << 10))
        assert "no space left on the disk (writing train.beton)" in prepare(tree, tmp_path / "out").error
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".prepare", "filler"]
        (tmp_path / "out/filler").unlink()
        prepared(tree, tmp_path / "out")
        assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_wrong_trees(tree: Path, tmp_path: Path) -> None:
    def error(source: Path, dataset: str = "imagefolder", *options: object) -> str:
        text = prepare(source, tmp_path / "out", *options, dataset=dataset).error
        assert not (tmp_path / "out").exists()
        return text

    assert "unknown dataset to prepare 'imagnet'; did you mean 'imagenet'?" in error(tree, "imagnet")
    assert error(tmp_path / "none") == f"--source {tmp_path}/none: no such folder"
    assert "expected the folders train and val (or validation, valid, test)" in error(tree / "train")
    assert "--max-side" in error(tree, "imagefolder", "--max-side", 5000)
    (tree / "val/dog").mkdir()
    assert error(tree) == f"{tree}/train and {tree}/val have different classes: only the test images have dog"
    (tree / "train/dog").mkdir()
    assert f"{tree}/train: no image of dog (images are .jpg, " in error(tree)
    shutil.rmtree(tree / "train")
    (tree / "train").mkdir()
    assert error(tree) == f"{tree}/train: expected a folder per class"


# A small ImageNet with the real class names, so that ImageNet's labels and checks are used.

WNIDS = ("n01440764", "n01443537", "n15075141")


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a dataset of 3 classes with 2 to 3 + 2 images each; the validation part has class folders."""
    monkeypatch.setattr(layouts, "imagenet", lambda: layouts.Official("Tiny", WNIDS, 8, (2, 3), 2))
    source, number = tmp_path / "ILSVRC2012", 0
    for label, wnid in enumerate(WNIDS):
        for i in range(2 + (label > 0)):
            save_image(source / "train" / wnid / f"{wnid}_{i}.JPEG", picture(20, 30, label * 3 + i))
    for label in (2, 0, 1, 0, 2, 1):  # as the official order mixes them
        number += 1
        name = f"ILSVRC2012_val_{number:08}.JPEG"
        save_image(source / "val" / WNIDS[label] / name, picture(20, 30, 50 + number))
    return source


def flatten(source: Path) -> list[tuple[str, str]]:
    """Move validation images out of their class folders; return (image, class) in the images' order."""
    pairs = sorted((path.stem, path.parent.name) for path in (source / "val").rglob("*.JPEG"))
    for name, wnid in pairs:
        (source / f"val/{wnid}/{name}.JPEG").rename(source / f"val/{name}.JPEG")
    for wnid in WNIDS:
        (source / "val" / wnid).rmdir()
    return pairs


def add_devkit(folder: Path, labels: list[tuple[str, str]]) -> None:
    data = folder / "ILSVRC2012_devkit_t12/data"
    data.mkdir(parents=True)
    numbers = {"n15075141": 1, "n01440764": 2, "n01443537": 3, "n00001740": 4}  # its own order; the last is no leaf
    rows = [(number, wnid, "words", 0) for wnid, number in numbers.items()]
    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    savemat(data / "meta.mat", {"synsets": np.array(rows, kinds).reshape(-1, 1)})
    truth = "".join(f"{numbers[wnid]}\n" for _, wnid in labels)
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)


def add_packed_devkit(folder: Path, labels: list[tuple[str, str]]) -> None:
    add_devkit(folder, labels)
    shutil.make_archive(str(folder / "ILSVRC2012_devkit_t12"), "gztar", folder, "ILSVRC2012_devkit_t12")
    shutil.rmtree(folder / "ILSVRC2012_devkit_t12")


def add_table(folder: Path, labels: list[tuple[str, str]]) -> None:
    rows = [f"{name},{wnid} 1 2 3 4 {wnid} 5 6 7 8\n" for name, wnid in reversed(labels)]
    (folder / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(rows))


@pytest.mark.parametrize("add", [add_devkit, add_packed_devkit, add_table])
@pytest.mark.parametrize("beside", [False, True])
def test_the_official_flat_validation_folder(
    official: Path, tmp_path: Path, add: Callable[[Path, list[tuple[str, str]]], None], beside: bool
) -> None:
    in_folders = prepared(official, tmp_path / "in folders", dataset="imagenet")
    assert in_folders.classes == WNIDS and in_folders.train and in_folders.train.images == 8
    labels = flatten(official)
    error = prepare(official, tmp_path / "out", dataset="imagenet").error
    assert "needs its labels: put ILSVRC2012_devkit_t12.tar.gz (or Kaggle's LOC_val_solution.csv)" in error
    add(tmp_path if beside else official, labels)
    assert prepared(official, tmp_path / "out", dataset="imagenet").version == in_folders.version
    assert (tmp_path / "out/val.beton").read_bytes() == (tmp_path / "in folders/val.beton").read_bytes()


def test_kaggles_archive(official: Path, tmp_path: Path) -> None:
    version = prepared(official, tmp_path / "official", dataset="imagenet").version
    add_table(tmp_path, flatten(official))
    (tmp_path / "ILSVRC/Data").mkdir(parents=True)
    official.rename(tmp_path / "ILSVRC/Data/CLS-LOC")
    (tmp_path / "ILSVRC/Data/CLS-LOC/test").mkdir()
    assert prepared(tmp_path, tmp_path / "out", dataset="imagenet").version == version


def test_what_is_not_all_of_imagenet(official: Path, tmp_path: Path) -> None:
    def error() -> str:
        return prepare(official, tmp_path / "out", dataset="imagenet").error

    (official / "train/n01443537/n01443537_2.JPEG").unlink()
    assert error() == (
        f"{official}/train: 7 images, Tiny states 8 (every class has 2 to 3); a part of it is prepared as `imagefolder`"
    )
    shutil.rmtree(official / "train/n01443537")
    assert "5 images, Tiny states 8; classes with other than 2 to 3: n01443537 has 0; a part of it" in error()
    (official / "train/dog").mkdir()
    assert f"{official}/train: dog: not among the 3 classes; other images are prepared as `imagefolder`" in error()
    (official / "train/dog").rmdir()
    (official / "train").rename(official / "hidden")
    assert error() == f"{official}: no folder train; to evaluate only, prepare it as `imagefolder`"


def test_wrong_labels_of_the_flat_folder(official: Path, tmp_path: Path) -> None:
    def error() -> str:
        return prepare(official, tmp_path / "out", dataset="imagenet").error

    labels = flatten(official)
    add_table(official, labels[:-1])
    assert error() == f"{official}/val: no label for ILSVRC2012_val_00000006.JPEG"
    (official / "LOC_val_solution.csv").write_text("a,b\n1,2\n")
    assert f"{official}: damaged ILSVRC2012_devkit_t12 or LOC_val_solution.csv: KeyError: 'ImageId'" in error()
    add_devkit(official, labels)
    (official / "ILSVRC2012_devkit_t12/data/meta.mat").write_bytes(b"MATLAB 5.0" + bytes(200))
    assert "damaged ILSVRC2012_devkit_t12 or LOC_val_solution.csv: " in error()


def test_the_real_imagenet() -> None:
    stated = layouts.imagenet()
    assert len(stated.classes) == 1000 and list(stated.classes) == sorted(set(stated.classes))
    assert (stated.classes[0], stated.classes[207], stated.classes[-1]) == ("n01440764", "n02099601", "n15075141")
    low, high = stated.train_per_class
    assert 1000 * low < stated.train < 1000 * high


def test_a_jpeg_that_has_an_index_already_is_the_same_data(tmp_path: Path) -> None:
    for folder in ("train", "val"):
        (tmp_path / "tree" / folder / "ant").mkdir(parents=True)
        (tmp_path / "tree" / folder / "ant/ours.jpg").write_bytes(mark_jpeg(picture(150, 150, 0), 16))
    versions = set()
    for restart in (0, 1):
        out = tmp_path / f"out{restart}"
        options = ("--source", tmp_path / "tree", "--out", out, "--workers", 1, "--restart", restart)
        assert run_command("prepare", "imagefolder", *options).code == 0
        versions.add(Manifest.read(out).version)
    assert len(versions) == 1


def test_a_jpeg_that_was_changed_after_its_index_was_written_is_named(tmp_path: Path) -> None:
    edited = mark_jpeg(picture(64, 64, 0), 16)
    at = 4 + int.from_bytes(edited[4:6], "big")  # behind the index
    edited = edited[:at] + b"\xff\xfe\x00\x06text" + edited[at:]
    for folder in ("train", "val"):
        (tmp_path / "tree" / folder / "ant").mkdir(parents=True)
        (tmp_path / "tree" / folder / "ant/a.jpg").write_bytes(encode_jpeg(picture(64, 64, 1)))
    (tmp_path / "tree/train/ant/edited.jpg").write_bytes(edited)
    options = ("prepare", "imagefolder", "--source", tmp_path / "tree", "--out", tmp_path / "out", "--workers", 1)
    assert "edited.jpg: a JPEG with an index of restart markers" in run_command(*options).error
    assert run_command(*options, "--skip-unreadable").code == 0

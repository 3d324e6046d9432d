"""A user's own data through the commands: read once by a process of its own, then from the cache."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.support.bench import Bench
from tests.support.cli import REPO, run_command

CLASS = '''
from pathlib import Path

import numpy as np

class Scans:
    """Notes in a file each time that its code runs."""

    classes, mean, std = ["left", "right"], 0.5, 0.25

    def __init__(self, root=None, *, images: int = 40):
        with Path("trace").open("a") as f:
            f.write("read\\n")
        self._pixels = np.load("pixels.npy")[:images]

    def files(self):
        return [Path("pixels.npy").absolute()]

    @property
    def train(self):
        return self._pixels[:-10], np.arange(len(self._pixels) - 10) % 2

    test = property(lambda self: (self._pixels[-10:], np.arange(10) % 2))
'''


@pytest.fixture
def home(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    (bench.folder / "scans.py").write_text(CLASS)
    write_pixels(bench.folder, 0)
    bench.sweep = {
        "dataset": "scans:Scans",
        "recipe": {"epochs": 1, "lr": 0.1, "batch_size": 15},
        "methods": ["student"],
        "pairs": [{"teacher": "digits_net_w4", "student": "digits_net_w4"}],
        "seeds": 1,
    }
    return bench


def write_pixels(folder: Path, seed: int) -> None:
    np.save(folder / "pixels.npy", np.random.default_rng(seed).integers(0, 256, (40, 8, 8), np.uint8))


def readings(home: Bench) -> int:
    trace = home.folder / "trace"
    return len(trace.read_text().splitlines()) if trace.exists() else 0


def plan(home: Bench) -> tuple[str, str]:
    """Return the first run's id, and what planning said."""
    result = home.call("status", "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)[-1]["run_id"], result.err


def test_data_are_read_when_their_source_or_files_change(home: Bench) -> None:
    first, said = plan(home)
    assert "reading scans:Scans, once: its arrays go to " in said and "30 training and 10 test images, content " in said
    assert plan(home) == (first, "") and readings(home) == 1
    (home.folder / "scans.py").write_text(CLASS.replace("Notes", "Writes"))  # in a docstring
    assert plan(home) == (first, "") and readings(home) == 1
    (home.folder / "scans.py").write_text(CLASS.replace('"left"', '"up"'))
    same, said = plan(home)
    assert same == first and "reading" in said, "the names of classes decide no number"
    write_pixels(home.folder, 1)
    second, said = plan(home)
    assert second != first and " as before: its runs are other runs" in said and readings(home) == 3
    (array,) = home.store.datasets.glob(f"arrays/{said.split('content ')[1][:16]}/train_images.npy")
    content = bytearray(array.read_bytes())
    content[-1] ^= 1
    array.write_bytes(content)
    assert plan(home)[0] == second and readings(home) == 4, "damaged arrays are made anew"
    os.utime(array)
    assert plan(home)[0] == second and readings(home) == 4, "arrays that were copied are checked, not read anew"
    home.sweep["dataset"] = {"name": "scans:Scans", "params": {"images": 30}}
    assert plan(home)[0] not in (first, second) and readings(home) == 5
    third = plan(home)
    home.sweep["dataset"] = "scans:Scans(images=30)"
    assert plan(home) == third and readings(home) == 5


def test_a_run_is_trained_and_evaluated_without_the_users_code(home: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id, _ = plan(home)
    (home.folder / "trace").unlink()
    result = home.run("sweep")
    assert result.returncode == 0, result.stderr
    (home.folder / "pixels.npy").unlink()
    science = json.loads((home.store.run(run_id) / "science.json").read_text())
    stated = {"classes": 2, "train_size": 30, "test_size": 10, "train_per_class": 15, "image_shape": [1, 8, 8]}
    assert science["dataset"].items() >= {"name": "scans:Scans", **stated, "mean": [0.5], "std": [0.25]}.items()
    command = ("evaluate", "--run", run_id, "--results", "results")
    monkeypatch.chdir(home.folder)
    result = run_command(*command)
    assert result.code == 0 and "scans:Scans (10 test images)" in result.out and readings(home) == 0
    for array in home.store.datasets.glob("arrays/*/*.npy"):
        array.unlink()
    refused = run_command(*command).error
    assert refused.startswith("dataset 'scans:Scans': content ") and " is not in " in refused and readings(home) == 0


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("scans:Scan", "sweep.yaml:1: dataset: dataset 'scans:Scan': unknown class 'Scan'; did you mean 'Scans'?"),
        ("scan:Scans", "dataset 'scan:Scans': no module 'scan' on the Python path (the current folder is on it)"),
        ({"name": "shutil:rmtree", "params": {"path": "victim"}}, "dataset 'shutil:rmtree': unknown class 'rmtree'"),
        (
            {"name": "subprocess:Popen", "params": {"args": "ls"}},
            "states no classes, mean, std; expected",
        ),
        ("scans.Scans", "unknown dataset 'scans.Scans'. Valid: "),
        ("scans:", "expected a dataset's name or package.module:Class, found 'scans:'"),
        ({"name": "digits", "params": {"a": 1}}, "params is for a class of your own; remove it for digits"),
        ({"name": "scans:Scans", "params": {"images": 9}}, "dataset 'scans:Scans': train: has no images"),
        ({"name": "scans:Scans", "params": {"image": 9}}, "unknown argument 'image'; did you mean 'images'?"),
        ({"name": "scans:Scans", "train_subset": 31}, "train_subset must be a multiple of 2"),
    ],
)
def test_mistakes(home: Bench, dataset: object, message: str) -> None:
    home.sweep["dataset"] = dataset
    result = home.call("sweep", "--plan")
    assert result.code == 2 and message in result.err and "Traceback" not in result.err, result.err
    assert not list(home.store.root.glob("runs"))


def test_code_in_the_store_is_not_run(home: Bench) -> None:
    home.store.root.mkdir()
    (home.folder / "scans.py").rename(home.store.root / "scans.py")
    home.sweep["dataset"] = "results.scans:Scans"
    assert "is in the store, from which no code is run: move it out" in home.call("sweep", "--plan").error
    assert readings(home) == 0

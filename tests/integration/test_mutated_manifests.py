"""Mutated manifests of prepared datasets give no traceback, exit code 0 or 2, and one message that names the file."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import synthetic_coco
from tests.support.cli import CommandResult, run_command
from tests.support.images import picture, save_image
from tests.support.mutated_inputs import check_mutants, mutated_json

pytestmark = pytest.mark.timeout(600)  # a command that hangs

FOLDERS: dict[str, Any] = {
    "dataset": {"name": "imagefolder", "folder": "prepared"},
    "recipe": {"epochs": 1, "lr": 0.1, "image_size": 32},
    "methods": ["student", "kd"],
    "pairs": [{"teacher": "torchvision:resnet34", "student": "torchvision:resnet18"}],
    "seeds": 1,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two prepared datasets and sweeps of them."""
    home = tmp_path_factory.mktemp("mutated")
    for part in ("train", "val"):
        for label, name in enumerate(("ant", "bee")):
            save_image(home / "source" / part / name / "0.jpg", picture(40, 40, label))
    assert prepare(home, "imagefolder", "prepared").code == 0
    synthetic_coco.prepare(home / "detection")
    (home / "imagefolder.yaml").write_text(yaml.safe_dump(FOLDERS))
    detectors = {**synthetic_coco.DETECTORS, "dataset": {"name": "coco", "folder": "detection/coco"}}
    (home / "coco.yaml").write_text(yaml.safe_dump(detectors))
    return home


def prepare(home: Path, dataset: str, out: str) -> CommandResult:
    return run_command("prepare", dataset, "--source", home / "source", "--out", home / out, "--workers", 1)


def check(home: Path, path: Path, command: Any, count: int) -> None:
    value = json.loads(path.read_text())

    def write(path: Path, rng: random.Random) -> None:
        path.write_bytes(mutated_json(value, rng))

    # A size of a file that is not the manifest's is said of the file, a subset that it cannot have of the sweep.
    names = ("coco.yaml", "imagefolder.yaml", "--out")
    check_mutants(path, write, [command], count, folder=home, names=names, readable=lambda path: path.is_file())


@pytest.mark.parametrize("dataset, folder", [("imagefolder", "prepared"), ("coco", "detection/coco")])
def test_manifests_that_a_sweep_reads(home: Path, dataset: str, folder: str) -> None:
    args = (home / f"{dataset}.yaml", "--plan", "--results", home / "results", "--data", home)
    assert run_command("sweep", *args).code == 0
    check(home, home / folder / "manifest.json", lambda: run_command("sweep", *args), 70)


def test_manifests_that_prepare_finds(home: Path) -> None:
    shutil.copytree(home / "prepared", home / "again")
    check(home, home / "again/manifest.json", lambda: prepare(home, "imagefolder", "again"), 40)

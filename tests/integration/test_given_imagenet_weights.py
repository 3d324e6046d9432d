"""Evaluate a torchvision network with ImageNet's weights on real images that harness.prepare has stored."""

import json
import os
from pathlib import Path

import pytest

from tests.support.cli import run_command

DATA = Path(os.environ.get("KD_DATA", "none"))
SAMPLE, WEIGHTS = DATA / "imagenet_sample_125", DATA / "weights"

pytestmark = pytest.mark.skipif(not SAMPLE.is_dir(), reason="KD_DATA has no imagenet_sample_125")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare 125 images of as many ImageNet classes, with the class indices that models use."""
    out = tmp_path_factory.mktemp("sample") / "prepared"
    result = run_command("prepare", "imagefolder", "--source", SAMPLE, "--out", out, "--classes", "imagenet", "--json")
    assert result.code == 0, result
    assert json.loads(result.out)["classes"] == 1000
    return out


@pytest.mark.parametrize("loader", ["ffcv", "pil"])
def test_squeezenet_is_right_on_about_60_percent(prepared: Path, loader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if loader == "ffcv":
        pytest.importorskip("ffcv")
    monkeypatch.setenv("KD_LOADER", loader)
    (file,) = WEIGHTS.glob("squeezenet1_0*")
    args = ("--model", "torchvision:squeezenet1_0", "--weights", file, "--folder", prepared)
    result = run_command("evaluate", "--dataset", "imagefolder", *args, "--json")
    document = json.loads(result.out)
    assert document["images"] == 125 and document["evaluated_on"] == "test"
    assert 55 <= document["top1"] <= 70 and document["top5"] > document["top1"] + 10


def test_what_has_no_training_images_is_not_trained_on(prepared: Path, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    pair = "{teacher: torchvision:resnet34, student: torchvision:resnet18}"
    file.write_text(
        f"dataset: {{name: imagefolder, folder: {prepared}}}\nrecipe: crd_100ep\n"
        f"methods: [student]\npairs: [{pair}]\nseeds: 1\n"
    )
    error = run_command("sweep", file, "--plan", "--results", tmp_path / "r").error
    assert error.endswith("dataset: imagefolder was prepared without training images: it is for evaluation only")


def test_a_class_that_is_not_listed_is_an_error(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("n01440764\n")
    args = ("--source", SAMPLE, "--out", tmp_path / "out", "--classes", names)
    result = run_command("prepare", "imagefolder", *args)
    assert result.code == 2 and "not among the 1 classes" in result.error
    assert not (tmp_path / "out").exists()
    assert "one a line, or imagenet" in run_command("prepare", "imagefolder", *args[:-1], tmp_path / "none").error
    assert "belongs to imagefolder" in run_command("prepare", "imagenet", *args).error

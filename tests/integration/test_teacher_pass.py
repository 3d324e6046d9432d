"""Runs whose method measures something on the teacher before training."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.data.load.imagefolder import ImageFolderSource
from harness.data.manifest import Manifest
from tests.support.bench import SWEEP, Bench
from tests.support.cli import run_command
from tests.support.images import picture, save_image
from tests.support.ranks import as_one_process, train_ranks

PASS = "a pass over 190 training images"
METHODS = {"wkd_l": {}, "sharp": {"use": "wkd_l", "params": {"sharpen": 2}}}


def test_one_pass_for_all_packs_and_the_same_end_alone_resumed_and_on_ranks(with_teacher: Bench) -> None:
    with_teacher.sweep = {**SWEEP, "methods": METHODS, "seeds": [0, 1]}
    run_ids = {key: cell.run_id for key, cell in with_teacher.cells().items()}
    assert with_teacher.train(*run_ids.values()) == 0
    log = with_teacher.folder / "job.log"
    assert log.read_text().count(PASS) == 1
    assert len({with_teacher.weights(run_id) for run_id in run_ids.values()}) == 4

    run_id = run_ids["wkd_l", 0]
    expected, row = with_teacher.weights(run_id), with_teacher.row(run_id)
    with_teacher.store.record(run_id).unlink()
    assert with_teacher.train(run_id, stop_after=3) == 0
    assert log.read_text().count(PASS) == 2
    result = with_teacher.run("sweep")
    assert result.returncode == 0, result.stderr
    assert PASS not in Path(with_teacher.store.attempts(run_id)[-1]["log"]).read_text(), "it is in the checkpoint"
    assert with_teacher.weights(run_id) == expected and with_teacher.row(run_id)["curves"] == row["curves"]

    with_teacher.store.record(run_id).unlink()
    train_ranks(with_teacher, 2, run_id)
    as_one_process(with_teacher.row(run_id), row, "wkd_l")
    assert len({(with_teacher.folder / f"digests-{rank}").read_text() for rank in range(2)}) == 1


def test_images_of_a_folder_are_read_as_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test images are the training images here."""
    monkeypatch.setenv("KD_LOADER", "pil")
    for part in ("train", "val"):
        for i in range(4):
            save_image(tmp_path / f"tree/{part}/{i % 2}/{i}.jpg", picture(40 + i, 50 - i))
    prepared = tmp_path / "prepared"
    result = run_command("prepare", "imagefolder", "--source", tmp_path / "tree", "--out", prepared, "--workers", 1)
    assert result.code == 0, result.err
    dataset: Any = SimpleNamespace(
        version=Manifest.read(prepared).version, validation=None, train_subset=None,
        info=SimpleNamespace(mean=(0.5,) * 3, std=(0.25,) * 3, classes=2),
    )  # fmt: skip
    recipe: Any = SimpleNamespace(eval_size=32, eval_resize=36, eval_crop_first=False)
    source = ImageFolderSource(dataset, recipe, prepared, torch.device("cpu"), 1)
    (evaluated, targets), *_ = source.evaluation().batches(slice(None))
    order = torch.tensor([3, 0, 1])
    assert torch.equal(torch.cat(list(source.unaugmented(order))), evaluated[order])
    assert torch.equal(source.train_targets, targets)

"""Mutated annotations in COCO's format give no traceback, exit code 0 or 2, and one message that names the file."""

import json
import random
import shutil
from pathlib import Path

import pytest

from tests.support.cli import CommandResult, run_command
from tests.support.images import picture, save_image
from tests.support.mutated_inputs import check_mutants, mutated_json

pytestmark = pytest.mark.timeout(600)  # a command that hangs

VALUE = {
    "info": {"year": 2017},
    "licenses": [{"id": 1, "name": "x"}],
    "images": [{"id": i, "file_name": f"{i}.jpg", "height": 16, "width": 24} for i in (1, 2)],
    "categories": [{"id": 3, "name": "cat", "supercategory": "animal"}, {"id": 7, "name": "dog"}],
    "annotations": [
        {"id": i, "image_id": i, "category_id": 3, "bbox": [1, 2, 8.5, 9], "area": 70.5, "iscrowd": 0} for i in (1, 2)
    ],
}


def test_annotations(tmp_path: Path) -> None:
    path, out = tmp_path / "source/annotations/instances_train.json", tmp_path / "out"
    for i in (1, 2):
        save_image(tmp_path / f"source/train/{i}.jpg", picture(16, 24, i))
    path.parent.mkdir()
    path.write_text(json.dumps(VALUE))

    def command() -> CommandResult:
        args = ("--source", tmp_path / "source", "--out", out, "--workers", 1)
        result = run_command("prepare", "coco", *args)
        shutil.rmtree(out, ignore_errors=True)
        return result

    assert command().code == 0
    shutil.rmtree(tmp_path / "source/train")  # whatever is read without a mistake then fails at once
    (tmp_path / "source/train").mkdir()

    def write(path: Path, rng: random.Random) -> None:
        path.write_bytes(mutated_json(VALUE, rng))

    names = ("source/train", "annotations")  # of a missing image, its own or its folder's
    check_mutants(path, write, [command], 110, folder=tmp_path, names=names, readable=Path.is_file)

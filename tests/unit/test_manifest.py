"""Manifests of prepared data sets, honest and not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.data.manifest import Manifest
from harness.errors import UserError

VALUE: dict[str, Any] = {
    "format": 1,
    "dataset": "imagefolder",
    "version": "0123456789abcdef",
    "settings": {"max_side": 400, "quality": 90},
    "source": "fedcba9876543210",
    "classes": ["ant", "bee"],
    "train": None,
    "test": {"file": "val.beton", "images": 2, "per_class_min": 1, "bytes": 3, "counts": {"kept": 2}},
    "unreadable": [{"file": "val/ant/1.JPEG", "why": "empty file"}],
    "made_with": {"pillow": "13.0.0"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "val.beton").write_bytes(b"abc")
    (tmp_path / "manifest.json").write_text(json.dumps(VALUE))
    return tmp_path


def test_what_is_written_is_read(folder: Path) -> None:
    found = Manifest.read(folder)
    assert (found.classes, found.train, found.test.images) == (("ant", "bee"), None, 2)
    found.write(folder)
    assert Manifest.read(folder) == found


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "format": ({"format": 2}, "manifest.json: format 2, this harness reads format 1"),
    "version": ({"version": "../x"}, "manifest.json: damaged: version: String should match pattern"),
    "key": ({"x": 1}, "manifest.json: damaged: x: Extra inputs are not permitted"),
    "file elsewhere": ({"test": {**VALUE["test"], "file": "../val.beton"}}, "damaged: test.file: Input should be"),
    "file missing": ({"train": {**VALUE["test"], "file": "train.beton"}}, "train.beton: is missing; prepare the data"),
    "file torn": ({"test": {**VALUE["test"], "bytes": 4}}, "val.beton: has 3 bytes, manifest.json states 4; prepare"),
}


@pytest.mark.parametrize("change, message", CHANGES.values(), ids=CHANGES)
def test_damage(folder: Path, change: dict[str, Any], message: str) -> None:
    (folder / "manifest.json").write_text(json.dumps({**VALUE, **change}))
    with pytest.raises(UserError) as e:
        Manifest.read(folder)
    assert message in str(e.value) and str(e.value).startswith(str(folder))


@pytest.mark.parametrize("content", [b"", b"[1, 2", b"\xff", b"[1]"])
def test_other_content(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match="manifest.json: damaged: "):
        Manifest.read(folder)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="holds no prepared data set .*make one with: python -m harness.prepare imagenet"
    ):
        Manifest.read(tmp_path)


def test_planning_can_read_it_quickly() -> None:
    heavy = (
        "import sys, harness.data.manifest; print([m for m in ('torch', 'numpy', 'PIL', 'ffcv') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", heavy], text=True) == "[]\n"

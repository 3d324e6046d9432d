"""A sweep of a user's own models, through the command line: it trains, is measured again, and goes into a bundle."""

import contextlib
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.store import records
from harness.store.store import Store
from tests.support.cli import process, run_command

NETS = """
from torch import nn
from .blocks import block

class TinyNet(nn.Module):
    def __init__(self, num_classes, in_channels=3, width: int = 4):
        super().__init__()
        self.first, self.second = block(in_channels, width), block(width, 2 * width, 2)
        self.fc = nn.Linear(2 * width, num_classes)
    def forward(self, x):
        return self.fc(self.second(self.first(x)).mean((2, 3)))
"""
BLOCKS = """
# after /home/ann/blocks.py
from torch import nn
def block(inputs, outputs, stride=1):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())
"""
SWEEP = """
dataset: {name: digits, train_subset: 100}
recipe: {base: digits_quick, epochs: 1}
methods:
  kd:
  hint: {use: fitnets, params: {tap: module.second}}
pairs:
  - teacher: {name: "run_nets.nets:TinyNet", params: {width: 8}}
    student: run_nets.nets:TinyNet
seeds: 1
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "run_nets").mkdir()
    for name, text in {"__init__": "", "nets": NETS, "blocks": BLOCKS}.items():
        (folder / f"run_nets/{name}.py").write_text(text)
    (folder / "own.yaml").write_text(SWEEP)
    result = process("-m", "harness.sweep", "own.yaml", "--no-check", "--max-parallel", "1", cwd=folder)
    assert result.code == 0, result.err
    return folder


@pytest.fixture
def folder(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    with contextlib.chdir(trained):
        yield trained
        (trained / "run_nets/blocks.py").write_text(BLOCKS)


def test_both_are_trained_and_compared(folder: Path) -> None:
    rows = records.read_records(Store(folder / "results"), Store(folder / "results").done_ids()).to_pylist()
    models = sorted((row["teacher"] or "", row["student"]) for row in rows)
    tiny, wide = "run_nets.nets:TinyNet", "run_nets.nets:TinyNet(width=8)"
    assert models == [("", wide), (wide, tiny), (wide, tiny)]
    sources = {json.loads(row["science"])["student_source"] for row in rows}
    assert len(sources) == 1 and next(iter(sources)).startswith("sha256:")
    planned = run_command("sweep", "own.yaml", "--plan", "--only", f"teacher={wide.replace('=', ' = ')}")
    assert "2 done" in planned.out + planned.err or "3 done" in planned.out + planned.err


@pytest.mark.parametrize(("change", "done"), [("# a comment\n", "0 to do, 3 done"), ("VALUE = 1\n", "3 to do, 0 done")])
def test_a_changed_helper_is_trained_again(folder: Path, change: str, done: str) -> None:
    (folder / "run_nets/blocks.py").write_text(BLOCKS + change)
    result = run_command("sweep", "own.yaml", "--plan")
    assert done in result.out + result.err


def test_a_run_is_measured_again_when_the_user_names_its_model(folder: Path) -> None:
    store = Store(folder / "results")
    row = next(r for r in records.read_records(store, store.done_ids()).to_pylist() if r["method"] == "kd")
    words = ("--run", row["run_id"], "--json")
    assert "no model named 'run_nets.nets:TinyNet' in the harness" in run_command("evaluate", *words).error
    wrong = run_command("evaluate", *words, "--own-model", "run_nets.nets:Tiny")
    assert wrong.error.endswith("the run's models are run_nets.nets:TinyNet and run_nets.nets:TinyNet(width=8)")
    result = run_command("evaluate", *words, "--own-model", "run_nets.nets:TinyNet")
    assert json.loads(result.out)["top1"] == pytest.approx(row["last_top1"])
    (folder / "run_nets/blocks.py").write_text(BLOCKS + "VALUE = 1\n")
    changed = run_command("evaluate", *words, "--own-model", "run_nets.nets:TinyNet")
    assert "its source has changed since the run was planned" in changed.error


def test_a_bundle_has_the_code_that_its_runs_import(folder: Path, tmp_path: Path) -> None:
    assert run_command("report", "own.yaml", "--bundle", tmp_path / "own.zip").code == 0
    with zipfile.ZipFile(tmp_path / "own.zip") as packed:
        packed.extractall(tmp_path / "own")
    code = tmp_path / "own/code"
    assert {p.name for p in (code / "run_nets").iterdir()} == {"__init__.py", "nets.py", "blocks.py"}
    assert "# after blocks.py\n" in (code / "run_nets/blocks.py").read_text()
    commands = (tmp_path / "own/commands.txt").read_text()
    assert commands.startswith("PYTHONPATH=own/code harness sweep") and "\nharness verify" in commands
    with contextlib.chdir(code):
        result = run_command("sweep", "../resolved.yaml", "--results", "..", "--plan")
    assert "0 to do, 3 done" in result.out + result.err, "the code is the same"


def test_a_module_that_does_not_run_is_reported(folder: Path) -> None:
    (folder / "failing_net.py").write_text("import there_is_no_such\ndef net(num_classes, in_channels): ...\n")
    words = ("--dataset", "digits", "--model", "failing_net:net", "--weights", "own.yaml")
    error = run_command("evaluate", *words).error
    assert "ModuleNotFoundError: No module named 'there_is_no_such'" in error and error.endswith("failing_net.py:1)")

"""Nothing in a folder that others have sent is run: no module next to a store, none that a file of a store names."""

import contextlib
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import save_file

from harness.errors import UserError
from harness.models.zoo import build_model
from harness.spec import methods
from harness.spec.science import DatasetChoice
from harness.spec.source_code import OwnCode
from harness.store.records import write_record
from harness.store.store import Store
from harness.training.trained_model import method_class, trained_model
from slurm.module_command import module_command
from tests.support.cli import PATIENCE, REPO, run_command
from tests.support.comparisons import row
from tests.support.sciences import make_science

PLANTED = (
    "typer",
    "yaml",
    "pydantic",
    "pyarrow",
    "numpy",
    "rich",
    "torch",
    "json",
    "pathlib",
    "enum",
    "multiprocessing",
)
METHOD = """
from pathlib import Path
from methods.base import Distiller

Path(__file__).with_name("ran").touch()

class Mine(Distiller):
    weights = {"ce": 1.0}
"""


def run_in(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture
def received(tmp_path: Path) -> Path:
    for name in PLANTED:
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')\nraise SystemExit('planted')\n")
    return tmp_path


@pytest.mark.parametrize("words", ["-m harness.report", "-m harness report", "-umharness.report"])
def test_modules_next_to_a_received_store_are_not_imported(received: Path, words: str) -> None:
    result = run_in(received, [sys.executable, *words.split(), "--results", "."])
    assert "no table yet" in result.stderr and not (received / "ran").exists()


def test_nor_by_the_processes_that_a_command_starts(received: Path) -> None:
    for package in ("slurm", "harness"):
        (received / package).mkdir()
        (received / package / "__init__.py").write_text((received / "yaml.py").read_text())
    with contextlib.chdir(received):
        command = module_command("slurm.local", "none.json")
    result = run_in(received, command)
    assert "none.json" in result.stderr and not (received / "ran").exists()
    with contextlib.chdir(REPO):
        assert "-P" not in module_command("slurm.local", "none.json"), "a checkout that is not installed"


def test_a_method_that_only_a_record_names_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "planted_method.py").write_text(METHOD)
    science = make_science("digits_net_w4", "planted_method:Mine")
    student, whole, ran = tmp_path / "student.safetensors", tmp_path / "whole.safetensors", tmp_path / "ran"
    tensors = build_model("digits_net_w4", 10, in_channels=1).state_dict()
    save_file(tensors, student)
    save_file({f"student.{name}": tensor for name, tensor in tensors.items()}, whole)
    with contextlib.chdir(tmp_path):
        trained_model(science, student, None)
        with pytest.raises(UserError, match="'planted_method:Mine' is part of them .* name it by --own-method"):
            trained_model(science, whole, None)
        assert not ran.exists()
        trained_model(science, student, None, own_method="planted_method:Mine")
    assert ran.exists(), "the user has named it"


@pytest.mark.parametrize(
    ("student", "dataset", "message"),
    [
        ("timm:hf-hub:ann/x", "digits", "has no model 'hf-hub:ann/x'|pip install"),
        ("planted:Mine", "digits", "no model named 'planted:Mine'"),
        ("digits_net_w4", "../..", "unknown dataset '../..'"),
        ("digits_net_w4", "planted:Mine", "the record does not state classes of its dataset 'planted:Mine'"),
        ('timm:test_resnet(checkpoint_path="x.pth")', "digits", "checkpoint_path is set by the harness|pip install"),
    ],
)
def test_a_model_or_dataset_that_only_a_record_names_is_refused(
    tmp_path: Path, student: str, dataset: str, message: str
) -> None:
    science = replace(make_science(student), dataset=DatasetChoice(dataset, "0"))
    write_record(Store(tmp_path), row(science.run_id, 1.0, 1.0, science=science.text))
    result = run_command("evaluate", "--run", science.run_id, "--results", tmp_path)
    assert result.code == 2 and re.fullmatch(f"error: --run {science.run_id}: .*({message}).*\n", result.err)


def test_a_plan_reads_a_method_and_does_not_run_it(tmp_path: Path) -> None:
    (tmp_path / "read_method.py").write_text(METHOD)
    with contextlib.chdir(tmp_path):
        assert methods.describe_method("read_method:Mine").weights == {"ce": 1.0}
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["os:system", "subprocess:Popen", "antigravity:fly", "tests.support.cli:run_command"])
def test_only_a_method_can_be_named(name: str) -> None:
    with pytest.raises(UserError, match="method|weights"):
        method_class(name)


def test_a_method_in_the_store_is_refused(tmp_path: Path) -> None:
    store = tmp_path / "planted_store"
    store.mkdir()
    (store / "planted.py").write_text(METHOD)
    (tmp_path / "beside_planted.py").write_text(METHOD)
    with contextlib.chdir(tmp_path):
        OwnCode("method", "beside_planted:Mine").refuse_in(store)
        planted = OwnCode("method", "planted_store.planted:Mine")
        with pytest.raises(UserError, match="is in the store, from which no code is run"):
            planted.refuse_in(store)
        planted.refuse_in(store, own_code=store)  # as in a cluster's job

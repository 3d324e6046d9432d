"""Mutated checkpoints give no traceback, exit code 0 or 2, and one message that names the file."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.models.zoo import build_model
from tests.support.cli import run_command
from tests.support.mutated_inputs import check_mutants, mutated_bytes, mutated_safetensors, mutated_state

pytestmark = pytest.mark.timeout(600)  # a command that hangs

MODEL = "digits_net_w4"
Write = Callable[[Path, random.Random], object]


def check(path: Path, write: Write, count: int) -> None:
    args = ("--dataset", "digits", "--model", MODEL, "--weights", path, "--results", path.parent / "results")
    command = lambda: run_command("evaluate", *args)  # noqa: E731
    check_mutants(path, write, [command], count, folder=path.parent, readable=Path.is_file)


def test_torch_checkpoints(tmp_path: Path) -> None:
    state, path = build_model(MODEL, 10, in_channels=1).state_dict(), tmp_path / "weights.pth"
    torch.save({"epoch": 240, "model": state}, path)

    def write(path: Path, rng: random.Random) -> None:
        old = rng.random() < 0.3
        torch.save(mutated_state(state, rng), path, _use_new_zipfile_serialization=not old)
        if rng.random() < 0.4:
            path.write_bytes(mutated_bytes(path.read_bytes(), rng))

    check(path, write, 100)


def test_safetensors(tmp_path: Path) -> None:
    state, path = build_model(MODEL, 10, in_channels=1).state_dict(), tmp_path / "weights.safetensors"
    save_file(state, path)
    data = path.read_bytes()
    check(path, lambda path, rng: path.write_bytes(mutated_safetensors(data, rng)), 80)

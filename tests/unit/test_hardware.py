"""The GPUs and cores that jobs on this machine are given."""

import os
import subprocess
import sys

import pytest
import torch

from harness.hardware import gpus
from slurm import entry

UUID = "GPU-8f5c1c2e-7a61-4b1f-9d0e-3a1f0d6c9b11"
MIG = "MIG-5d2c7e9a-1f0b-5c3d-8e7f-6a5b4c3d2e1f"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("", []), ("0,2", ["0", "2"]), (f"{UUID}, {MIG}", [UUID, MIG]), ("1,-1,0", ["1"]), ("NoDevFiles", [])],
)
def test_gpus_are_those_that_cuda_sees(monkeypatch: pytest.MonkeyPatch, visible: str, expected: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == expected


@pytest.mark.parametrize(("given", "driver", "usable"), [("0", True, False), ("0", False, True), ("", True, True)])
def test_a_job_does_not_train_on_the_cpu_for_want_of_a_gpu_that_has_a_driver(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: str, driver: bool, usable: bool
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setattr(entry, "has_driver", lambda: driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert entry.has_usable_gpus() == usable
    problem = f"SLURM gave this job GPUs ({given}), but torch cannot use them"
    says = f"warning: {problem}: training on the CPU\n" if usable else f"error: {problem}\n"
    assert capsys.readouterr().out == (says if given else "")


SHOW = """
import os
from harness.console.app import run_command
def show() -> None:
    "Show how threads wait."
    print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY"))
run_command(show)
"""


@pytest.mark.parametrize(
    ("of_user", "expected"),
    [
        ({}, "3000 None"),
        ({"OMP_WAIT_POLICY": "active"}, "None active"),
        ({"GOMP_SPINCOUNT": "300000"}, "300000 None"),
    ],
)
def test_in_commands_waiting_threads_sleep_soon_unless_the_user_says_otherwise(
    of_user: dict[str, str], expected: str
) -> None:
    others = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    shown = subprocess.run([sys.executable, "-c", SHOW], env=others | of_user, capture_output=True, text=True)
    assert shown.stdout.strip() == expected, shown.stderr

"""`make bench-gpu` on a machine without a GPU."""

import json

import pytest
import torch

from tests.support.cli import run_module


def test_a_missing_gpu_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = run_module("benchmarks.perf.gpu_kd")
    assert result.error == "this bench needs a CUDA GPU, and torch finds none here"


@pytest.mark.slow
def test_its_program_runs_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each side takes a few steps on a CPU, so that on a GPU only the GPU itself can go wrong."""
    monkeypatch.setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32")  # as the program sets it, for its whole process
    result = run_module("benchmarks.perf.gpu_kd", "--smoke")
    assert result.code == 0, result.err
    pack, single = map(json.loads, result.out.splitlines())
    assert (pack["bench"], pack["target"], single["bench"], single["target"]) == ("gpu_pack", 6.0, "gpu_kd", 3.0)
    detail = single["detail"]
    assert detail["device"] == "CPU, a smoke test" and single["ratio"] > 0 and pack["ratio"] > 0
    assert detail["ratios"].keys() == {"bf16", "tf32", "float32"}
    # One for each member and one for the teacher.
    assert detail["graphs_recorded"]["alone bf16"] == 2 and detail["graphs_recorded"]["pack bf16"] == 3
    for side in ("alone", "pack"):
        assert {"data", "teacher", "student"} <= detail["parts_ms_per_step"][f"{side} bf16"].keys()
        assert detail["kernels"][side]["ms_per_step"], detail["kernels"][side]
        assert detail["minutes_of_240_epochs"][f"{side} bf16"] > 0

"""The GPUs that jobs on this machine are given."""

import pytest

from harness.hardware import gpus

UUID = "GPU-8f5c1c2e-7a61-4b1f-9d0e-3a1f0d6c9b11"
MIG = "MIG-5d2c7e9a-1f0b-5c3d-8e7f-6a5b4c3d2e1f"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("", []), ("0,2", ["0", "2"]), (f"{UUID}, {MIG}", [UUID, MIG]), ("1,-1,0", ["1"]), ("NoDevFiles", [])],
)
def test_gpus_are_those_that_cuda_sees(monkeypatch: pytest.MonkeyPatch, visible: str, expected: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == expected

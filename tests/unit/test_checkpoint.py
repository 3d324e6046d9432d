"""A damaged checkpoint is skipped, and nothing in a checkpoint is ever run as code."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.errors import UserError
from harness.training import checkpoint, recorder

TENSORS = {
    "student.weight": torch.arange(6.0).view(2, 3).T,  # not contiguous
    "method.log_z": torch.tensor(float("nan")),
    "student.count": torch.tensor(3),
}
STATE = {"history": {"epoch": 2, "curves": [[1, "train_ce", 0.1 + 0.2]]}, "steps": 0}


def saved(folder: Path) -> bytes:
    checkpoint.save(folder, 2, 0, TENSORS, STATE)
    (path,) = folder.glob("epoch-*")
    return path.read_bytes()


def test_a_checkpoint_returns_what_was_saved(tmp_path: Path) -> None:
    saved(tmp_path)
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None and loaded[1] == STATE and loaded[0].keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded[0][name].dtype == tensor.dtype
        assert torch.equal(loaded[0][name].nan_to_num(7), tensor.nan_to_num(7))


def test_the_last_two_checkpoints_remain(tmp_path: Path) -> None:
    for epoch, step in ((0, 9), (1, 0), (1, 12), (1, 100), (10, 3)):
        checkpoint.save(tmp_path, epoch, step, TENSORS, {"at": [epoch, step]})
    assert len(list(tmp_path.iterdir())) == 2
    newest = checkpoint.load_newest(tmp_path)
    assert newest is not None and newest[1] == {"at": [10, 3]}
    sorted(tmp_path.iterdir())[-1].unlink()
    before = checkpoint.load_newest(tmp_path)
    assert before is not None and before[1] == {"at": [1, 100]}


@given(st.integers(0, 2**16), st.integers(1, 255))
@example(0, 1)
@example(7, 255)  # a header longer than memory
@example(8, ord("{") ^ ord("["))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_is_noticed(tmp_path: Path, at: int, mask: int) -> None:
    content = bytearray(saved(tmp_path))
    content[at % len(content)] ^= mask
    (path,) = tmp_path.glob("epoch-*")
    path.write_bytes(content)
    loaded = checkpoint.load_newest(tmp_path)
    if loaded is not None:  # the change has no effect, for instance in the header's padding
        assert loaded[1] == STATE and loaded[0].keys() == TENSORS.keys()
        assert all(torch.equal(loaded[0][k].nan_to_num(7), t.nan_to_num(7)) for k, t in TENSORS.items())


@given(st.integers(0, 2**16))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_cut_is_noticed(tmp_path: Path, length: int) -> None:
    content = saved(tmp_path)
    (path,) = tmp_path.glob("epoch-*")
    path.write_bytes(content[: length % len(content)])
    assert checkpoint.load_newest(tmp_path) is None


def test_another_runs_checkpoint_is_not_continued(tmp_path: Path) -> None:
    first, second = (tmp_path / run_id / "checkpoints" for run_id in "ab")
    content = saved(first)
    second.mkdir(parents=True)
    (second / "epoch-000002-step-000000.safetensors").write_bytes(content)
    assert checkpoint.load_newest(second) is None
    assert checkpoint.load_newest(first)


class Payload:
    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.write_text, (self.trace, "ran")


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_in_its_place_is_not_run(tmp_path: Path, how: str) -> None:
    path, trace = tmp_path / "epoch-000001-step-000000.safetensors", tmp_path / "trace"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Payload(trace)))
    else:
        torch.save({"student.weight": Payload(trace)}, path)
    assert checkpoint.load_newest(tmp_path) is None
    assert not trace.exists()


def test_a_wrong_time_between_checkpoints_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_CHECKPOINT_SECONDS", "soon")
    with pytest.raises(UserError, match="KD_CHECKPOINT_SECONDS=soon: expected a number of seconds"):
        recorder._checkpoint_seconds()

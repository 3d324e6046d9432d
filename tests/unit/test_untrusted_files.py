"""Invariant 8: no code in a file of weights or data is ever run."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from harness.data.load import cifar
from harness.data.load.arrays import WrongData
from harness.models.checkpoints import WeightsError, load_weights
from harness.models.zoo import build_model
from tests.support.pickles import Calls


def payloads(trace: Path) -> dict[str, Calls]:
    return {
        "method": Calls(Path.write_text, trace, "ran"),
        "eval": Calls(eval, f"open({str(trace)!r}, 'w')"),
        "process": Calls(subprocess.run, ["touch", str(trace)]),
        "import": Calls(__import__, "this"),
        "numpy": Calls(np.save, str(trace), 1),
    }


KINDS = sorted(payloads(Path()))


def has_run(trace: Path) -> bool:
    return trace.exists() or sys.modules.pop("this", None) is not None


def model() -> Any:
    return build_model("digits_net_w4", 10, in_channels=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle"])
def test_a_checkpoint_that_calls_something_is_refused(tmp_path: Path, kind: str, form: str) -> None:
    file, trace = tmp_path / "teacher.pth", tmp_path / "trace.npy"
    state = {**model().state_dict(), "fc.weight": payloads(trace)[kind]}
    if form == "bare pickle":
        file.write_bytes(pickle.dumps({"fc.weight": payloads(trace)[kind]}, 2))
    else:
        torch.save(state, file, _use_new_zipfile_serialization=form == "zip")
    message = "is a plain pickle" if form == "bare pickle" else "fc.weight is no plain tensor: "
    with pytest.raises(WeightsError, match=f"teacher.pth: {message}"):
        load_weights(model(), "digits_net_w4", file)
    assert not has_run(trace)


@pytest.mark.parametrize("wrap", [None, "model", "state_dict"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_valid_weights_load(tmp_path: Path, wrap: str | None, suffix: str) -> None:
    file, trained, fresh = tmp_path / f"teacher.{suffix}", model(), model()
    state = trained.state_dict()
    if suffix == "safetensors":
        save_file(state, file)
    else:
        torch.save({"epoch": 240, "best_acc": 0.7, wrap: state} if wrap else state, file)
    load_weights(fresh, "digits_net_w4", file)
    assert all(torch.equal(fresh.state_dict()[k], v) for k, v in state.items())


def cifar_folder(folder: Path, change: Callable[[dict[bytes, Any]], Any], protocol: int = 2) -> Path:
    for split in ("train", "test"):
        images = np.arange(2 * 3072, dtype=np.int64).astype(np.uint8).reshape(2, 3072)
        content = change({b"data": images, b"fine_labels": [3, 4], b"filenames": [b"a", b"b"]})
        (folder / split).write_bytes(pickle.dumps(content, protocol))
    return folder


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_valid_data_load(tmp_path: Path, protocol: int) -> None:
    arrays = cifar.read_arrays(cifar_folder(tmp_path, lambda content: content, protocol))
    assert arrays.train_images.shape == (2, 3, 32, 32) and arrays.test_targets.tolist() == [3, 4]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("replaced", ["data", "everything"])
def test_a_data_file_that_calls_something_is_refused(tmp_path: Path, kind: str, replaced: str) -> None:
    trace = tmp_path / "trace.npy"
    payload = payloads(trace)[kind]
    cifar_folder(tmp_path, lambda content: {**content, b"data": payload} if replaced == "data" else payload)
    with pytest.raises(WrongData, match="refused to load"):
        cifar.read_arrays(tmp_path)
    assert not has_run(trace)


@pytest.mark.parametrize("content", [b"", b"\x80", b"not a pickle", pickle.dumps([1]), pickle.dumps({b"data": 1})])
def test_other_files_in_place_of_data_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train").write_bytes(content)
    with pytest.raises(WrongData, match="train: not a CIFAR-100 file"):
        cifar.read_arrays(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_payload_that_is_unpickled_leaves_a_trace(tmp_path: Path, kind: str) -> None:
    """A payload does act when unpickled; otherwise the tests above would prove nothing."""
    trace = tmp_path / "trace.npy"
    assert not has_run(trace)
    pickle.loads(pickle.dumps(payloads(trace)[kind]))
    assert has_run(trace)

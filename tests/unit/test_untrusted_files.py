"""Invariant 8: no code in a file of weights or data is ever run."""

import pickle
import subprocess
import sys
import tracemalloc
import zipfile
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
    message = "is a plain pickle" if form == "bare pickle" else r"fc.weight is no plain tensor \("
    with pytest.raises(WeightsError, match=f"teacher.pth: {message}"):
        load_weights(model(), "digits_net_w4", file)
    assert not has_run(trace)


# What a pickle can do besides a call of a function by its name: all that Python's own reader would run or allocate.
OPCODES = {
    "old instance": b"(Vtouch trace\niposix\nsystem\n.",
    "object": b"(cposix\nsystem\nVtouch trace\no.",
    "new object": b"\x80\x02cposix\nsystem\nVtouch trace\n\x85\x81.",
    "new object with keywords": b"\x80\x04cposix\nsystem\nVtouch trace\n\x85}\x92.",
    "call of what a call returned": b"cbuiltins\ngetattr\n(cposix\nsystem\nV__call__\ntR(Vtouch trace\ntR.",
    "state of a class": b"\x80\x02ctorch.nn\nModule\n}Vdump_patches\nI01\nsb.",
    "state of an object": b"\x80\x02cx\nY\n)\x81}V__class__\nNsb.",
    "extension": b"\x80\x02\x82\x01)R.",
    "huge memo": b"\x80\x02]r\xff\xff\xff\x7f.",
    "huge text": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x00.",
    "huge array": b"\x80\x05\x96" + b"\xff" * 7 + b"\x00.",
    "deep key": b"\x80\x02})" + b"\x85" * 50_000 + b"Ns.",
    "references": b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60)) + b".",
    "itself": b"}q\x00Va\nh\x00s.",
    "no values": b"\x80\x02R.",
    "no end": b"\x80\x02}",
}


@pytest.mark.parametrize("kind", OPCODES)
def test_no_opcode_acts_or_takes_memory(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("w.pth", "w") as archive:
        archive.writestr("w/data.pkl", OPCODES[kind])
    tracemalloc.start()
    with pytest.raises(WeightsError, match="w.pth: (holds no tensors by name|is damaged or cut short)"):
        load_weights(model(), "digits_net_w4", Path("w.pth"))
    assert tracemalloc.get_traced_memory()[1] < 2e8
    tracemalloc.stop()
    assert list(tmp_path.iterdir()) == [tmp_path / "w.pth"]


def tensor_bytes(shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, count: int = 10) -> bytes:
    """Return the pickle of ``{"fc.bias": a tensor}``, whatever its numbers."""
    names = (b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\n", b"tQ")
    numbers = [b"(" + b"".join(b"I%d\n" % n for n in values) + b"t" for values in (shape, stride)]
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + names[0] + b"I%d\n" % count + names[1] + b"I%d\n" % offset
    return b"}Vfc.bias\n" + call + b"".join(numbers) + b"I00\nNtRs."


@pytest.mark.parametrize(
    "numbers",
    [((20,), (1,)), ((10,), (2,)), ((10,), (1,), 5), ((10,), (-1,), 9), ((10,), (1,), -1), ((10, 1 << 50), (0, 0)),
     ((11,), (1,), 0, 1 << 50), ((10,), (1 << 60,)), ((1,) * 99, (1,) * 99), ((0, 1 << 59, 1 << 59), (1, 1, 1))],
)  # fmt: skip
def test_a_tensor_outside_of_what_is_stored_is_refused(tmp_path: Path, numbers: Any) -> None:
    file = tmp_path / "w.pth"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("w/data.pkl", tensor_bytes(*numbers))
        archive.writestr("w/data/0", bytes(40))
    with pytest.raises(WeightsError, match="is damaged|no tensors by name|in the file|no plain tensor"):
        load_weights(model(), "digits_net_w4", file)


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

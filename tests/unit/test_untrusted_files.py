"""Invariant 8: no code in a file of weights or data is ever run."""

import pickle
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from harness.data.load import cifar
from harness.data.load.arrays import WrongData, read_cached
from harness.errors import UserError
from harness.models.checkpoints import WeightsError, load_weights
from harness.models.zoo import build_model
from harness.planning import locate
from harness.spec.schema import Dataset
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


def text_keys(content: dict[bytes, Any]) -> dict[str, Any]:
    return {key.decode(): value for key, value in content.items()}


def by_pixel(content: dict[bytes, Any]) -> dict[bytes, Any]:
    images = content[b"data"].reshape(-1, 3, 32, 32)
    return {**content, b"data": np.ascontiguousarray(images.transpose(0, 2, 3, 1))}


SAVED_AGAIN: dict[str, Callable[[dict[bytes, Any]], Any]] = {
    "text keys": text_keys,
    "lists": lambda content: {**content, b"data": content[b"data"].tolist()},
    "rows of arrays": lambda content: {**content, b"data": list(content[b"data"])},
    "by pixel": by_pixel,
    "by channel": lambda content: {**content, b"data": content[b"data"].reshape(-1, 3, 32, 32)},
    "labels of numpy": lambda content: {**content, b"fine_labels": np.array(content[b"fine_labels"])},
    "scalars of numpy": lambda content: {**content, b"fine_labels": list(np.array(content[b"fine_labels"]))},
    "ordered": OrderedDict,
}


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("how", SAVED_AGAIN)
def test_data_saved_again_are_the_same(tmp_path: Path, how: str, protocol: int) -> None:
    version = cifar.read_arrays(cifar_folder(tmp_path, lambda content: content)).version()
    assert cifar.read_arrays(cifar_folder(tmp_path, SAVED_AGAIN[how], protocol)).version() == version
    if protocol == 2:
        for file in (tmp_path / "train", tmp_path / "test"):  # as NumPy 1 names its functions
            file.write_bytes(file.read_bytes().replace(b"numpy._core.", b"numpy.core."))
        assert cifar.read_arrays(tmp_path).version() == version


def binary(root: Path, python: Path) -> Path:
    """Write the binary version of the files in a folder."""
    arrays, folder = cifar.read_arrays(python), root / "cifar-100-binary"
    folder.mkdir()
    for name, images, targets in (
        ("train", arrays.train_images, arrays.train_targets), ("test", arrays.test_images, arrays.test_targets)
    ):  # fmt: skip
        rows = np.column_stack([np.full(len(targets), 9), targets, images.reshape(len(images), -1)])
        (folder / f"{name}.bin").write_bytes(rows.astype(np.uint8).tobytes())
    return folder


@pytest.mark.parametrize("tar", [None, "w:gz", "w"])
@pytest.mark.parametrize("form", ["python", "binary"])
def test_cifar_is_found_as_it_is_distributed(tmp_path: Path, form: str, tar: Literal["w:gz", "w"] | None) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "python").mkdir()
    folder = cifar_folder(tmp_path / "python", lambda content: content)
    version = cifar.read_arrays(folder).version()
    folder = binary(tmp_path, folder) if form == "binary" else folder.rename(tmp_path / "cifar-100-python")
    if tar is None:
        folder = folder.rename(tmp_path / "root" / folder.name)
    else:
        with tarfile.open(tmp_path / "root" / f"{folder.name}.tar{'.gz' if tar == 'w:gz' else ''}", tar) as archive:
            archive.add(folder, folder.name)
    root = tmp_path / "root"
    for place in (root, *([folder] if tar is None else ())):
        data = locate.dataset_folder(Dataset(name="cifar100"), place)
        assert data and cifar.read_arrays(data).version() == version


def test_a_wrong_place_of_cifar_is_told(tmp_path: Path) -> None:
    def error(root: Path) -> str:
        with pytest.raises(UserError) as caught:
            locate.dataset_folder(Dataset(name="cifar100"), root)
        assert str(caught.value).startswith(f"dataset 'cifar100': no folder {root}/cifar-100-python; name the folder")
        return str(caught.value)

    root = tmp_path / "root"
    (root / "weights").mkdir(parents=True)
    assert "; found weights; expected cifar-100-python (the files train and test), " in error(root)
    (root / "cifar-10-batches-py").mkdir()
    (root / "cifar-10-batches-py/data_batch_1").touch()
    assert f"; {root}/cifar-10-batches-py is CIFAR-10, another dataset; " in error(root)
    assert f"; {root}/cifar-10-batches-py is CIFAR-10, another dataset; " in error(root / "cifar-10-batches-py")
    (root / "cifar-100-python.tgz").touch()
    assert f"; {root} has it; " in error(root / "weights")
    assert f"; {root} has it; " in error(tmp_path)
    (root / "cifar-100-python.tgz").unlink()
    (root / "cifar-100-python").mkdir()
    (root / "cifar-100-python/train").touch()
    assert f"; {root}/cifar-100-python lacks test, unpack it again; " in error(root)
    (root / "cifar-100-python/cifar-100-python.tar").touch()
    assert f"; {root}/cifar-100-python has it; " in error(root)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("cifar-100-python.tar.gz", b"x", "cifar-100-python.tar.gz: a damaged or cut tar: no tar, perhaps an error"),
        ("cifar-100-binary/train.bin", bytes(3075), "train.bin: not a CIFAR-100 file .3,075 bytes are no whole number"),
        ("train", pickle.dumps({b"data": 1, b"labels": [1]}), "train: not a CIFAR-100 file .*expected uint8 of shape"),
        ("train", pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [1]}), "no fine_labels, .*CIFAR-10's"),
        ("train", pickle.dumps({"Data": 1}), "train: not a CIFAR-100 file .no data, found Data"),
    ],
)
def test_damaged_data_are_told(tmp_path: Path, name: str, content: bytes, error: str) -> None:
    for file in (tmp_path / name, (tmp_path / name).with_name(name.rpartition("/")[2].replace("train", "test"))):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    data = locate.dataset_folder(Dataset(name="cifar100"), tmp_path)
    with pytest.raises(WrongData, match=error):
        cifar.read_arrays(data)


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


@pytest.mark.parametrize("kind", ["archive", "objects", "huge"])
def test_other_files_in_place_of_cached_arrays_are_removed(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "cached"
    folder.mkdir()
    with (folder / "train_images.npy").open("wb") as file:
        if kind == "archive":
            np.savez(file, a=np.zeros(3))
        elif kind == "objects":
            np.save(file, np.array([{}], dtype=object), allow_pickle=True)
        else:
            text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**20},), }}".ljust(117).encode()
            file.write(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text + b"\n")
    with pytest.raises(WrongData, match="damaged: content hash none .*; removed"):
        read_cached(folder, "x")
    assert not folder.exists()

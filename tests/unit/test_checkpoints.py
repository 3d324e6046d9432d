"""Checkpoints as programs leave them: which of their tensors are taken, what is said, and what is refused in words."""

import argparse
import io
import json
import pickle
import random
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.models.checkpoints import WeightsError, load_weights
from harness.models.zoo import build_model
from harness.spec.pretrained import Place
from tests.support.cli import run_command

State = dict[str, Tensor]
NAME = "digits_net_w4"


def network(classes: int = 10, name: str = NAME) -> Any:
    return build_model(name, classes, in_channels=1)


def state(seed: int = 1, **kinds: Any) -> State:
    torch.manual_seed(seed)
    return dict(network(**kinds).state_dict())


MINE, OTHER = state(1), state(2)


def with_prefix(prefix: str, tensors: State = MINE) -> State:
    return {prefix + key: tensor for key, tensor in tensors.items()}


def as_float(change: Any) -> State:
    return {key: change(tensor) if tensor.is_floating_point() else tensor for key, tensor in MINE.items()}


def options() -> argparse.Namespace:
    return argparse.Namespace(model=NAME, lr=0.05, save_folder=Path("save"), lr_decay_epochs=[150, 180, 210])


def optimizer() -> dict[str, Any]:
    net = network()
    sgd = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    sgd.step()
    return sgd.state_dict()


def load(file: Path, expected: State | None = MINE, **place: str) -> str:
    """Load a file and return what was said of it."""
    net = network()
    loaded = load_weights(net, NAME, file, place=Place(**place))
    if expected is not None:
        assert all(torch.equal(net.state_dict()[k], v.to(net.state_dict()[k].dtype)) for k, v in expected.items())
    return loaded.part


def error(file: Path, **place: str) -> str:
    with pytest.raises(WeightsError) as caught:
        load(file, None, **place)
    text = str(caught.value)
    assert text.startswith(f"weights {file}: ") and text.isprintable() and "weights_only" not in text
    return text.removeprefix(f"weights {file}: ")


def saved(content: Any, file: Path, legacy: bool = False) -> Path:
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file


# By the name of the file, what RepDistiller, mdistiller, timm and Lightning write there, and what is said of it.
LEFT_BY_PROGRAMS: dict[str, tuple[Any, str]] = {
    "resnet_last.pth": ({"opt": options(), "model": MINE, "optimizer": optimizer()}, "taken from `model`"),
    "resnet_best.pth": (
        {"epoch": 3, "model": MINE, "best_acc": np.float64(71.6), "optimizer": optimizer()},
        "taken from `model`",
    ),
    "ckpt_epoch_240.pth": (
        {"epoch": 240, "model": MINE, "accuracy": torch.tensor([71.6]), "optimizer": optimizer()},
        "taken from `model`",
    ),
    "student_best": ({"model": MINE}, "taken from `model`"),
    "latest": (
        {
            "epoch": 3,
            "model": with_prefix("module.student.") | with_prefix("module.teacher.", state(2, name="digits_net_w8")),
            "optimizer": optimizer(),
            "best_acc": np.float32(71.6),
        },
        "taken from `model`, without the prefix `module.student.`, 44 others left out (module.teacher.conv1.weight",
    ),
    "model_best.pth.tar": (
        {"epoch": 3, "arch": "net", "state_dict": MINE, "state_dict_ema": OTHER, "args": options(), "metric": 71.6},
        "taken from `state_dict`, averaged weights (EMA) are there too: key `state_dict_ema`",
    ),
    "epoch=9.ckpt": (
        {"state_dict": with_prefix("model.") | {"loss.weight": torch.ones(3)}, "callbacks": {"x": Path("x")}},
        "taken from `state_dict`, without the prefix `model.`, 1 other left out (loss.weight)",
    ),
    "states.pt": (
        {"net": MINE, "rng": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()},
        "taken from `net`",
    ),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", LEFT_BY_PROGRAMS)
def test_files_load_as_programs_leave_them(tmp_path: Path, name: str, legacy: bool) -> None:
    content, said = LEFT_BY_PROGRAMS[name]
    assert load(saved(content, tmp_path / name, legacy)).startswith(said)


class Wrapper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.module = network()
        self.module.load_state_dict(MINE)


# What a file may hold, and the keys and the prefix that are told.
PLACES: dict[str, tuple[Any, str]] = {
    "bare": (MINE, ""),
    "nested": ({"a": {"net": {"weights": with_prefix("module.backbone.")}}}, "a.net.weights module.backbone."),
    "compiled": (with_prefix("module._orig_mod."), "module._orig_mod."),
    "a prefix without a dot": (with_prefix("teacher_"), "teacher_"),
    "only the backbone has a prefix": (
        {key if key.startswith("fc") else f"backbone.{key}": tensor for key, tensor in MINE.items()},
        "backbone.",
    ),
    "parts are compiled": ({k.replace("layer1.", "layer1._orig_mod."): v for k, v in MINE.items()}, "_orig_mod."),
    "a list": ([MINE], "0"),
    "a network": (Wrapper().module, ""),
    "a network in another": (Wrapper(), "module."),
    "twice the same": ({"model": MINE, "state_dict": MINE}, "model"),
    "parameters": (as_float(nn.Parameter), ""),
    "float16": (as_float(Tensor.half), ""),
    "float64": (as_float(Tensor.double), ""),
    "counters of thop": ({**MINE, "total_ops": torch.ones(1), "layer1.total_params": torch.ones(1)}, ""),
    "without counters of batches": ({k: v for k, v in MINE.items() if not k.endswith("tracked")}, ""),
    "averaged only": ({"model_ema": with_prefix("module.")}, "model_ema module. EMA"),
}


@pytest.mark.parametrize("what", PLACES)
def test_a_state_dict_is_found_by_the_models_names(tmp_path: Path, what: str) -> None:
    content, told = PLACES[what]
    told_of = load(saved(content, tmp_path / "w.pth"), MINE if "float16" not in what else None)
    assert all(word in told_of for word in told.split()) and bool(told_of) == bool(told), told_of


TWO = {"student": with_prefix("net."), "teacher": {"net": OTHER}}


def test_several_that_fit_are_listed_and_chosen_between(tmp_path: Path) -> None:
    file = saved(TWO, tmp_path / "two.pth")
    assert error(file) == (
        f"holds 2 state dicts that fit {NAME}: state `key` or `prefix` to choose: key `student` with prefix `net.`; "
        "key `teacher.net`"
    )
    assert load(file, key="student").startswith("taken from `student`")
    assert load(file, OTHER, key="teacher") == "taken from `teacher.net`"
    assert error(file, key="studnet").startswith("has an unknown key 'studnet'; did you mean 'student'? Valid: ")
    assert error(file, key="student", prefix="x.").startswith("has no names that begin with the prefix 'x.'; they are")
    one = saved(with_prefix("a.") | with_prefix("b.", OTHER), tmp_path / "one.pth")
    assert "prefix `a.`; prefix `b.`" in error(one)
    assert "b.conv1.weight" in load(one, prefix="a.") and "prefix `b.`" in load(one, OTHER, prefix="b.")
    holds_teacher = saved(MINE | with_prefix("teacher.", OTHER), tmp_path / "holds.pth")
    assert "prefix `teacher.`; prefix ``" in error(holds_teacher)
    assert load(holds_teacher, prefix="").startswith("44 others left out (teacher.")
    averaged = saved({"model": MINE, "model_ema": OTHER}, tmp_path / "ema.pth")
    assert load(averaged, OTHER, key="model_ema") == "taken from `model_ema`, these are averaged weights (EMA)"


MISFITS: dict[str, tuple[Any, str]] = {
    "classes": (state(classes=100), f"the file's last layer (fc) has 100 classes, the model {NAME} 10"),
    "widths": (state(name="digits_net_w8"), f"not the weights of {NAME}: 8 of its 44 tensors match; conv1.weight is"),
    "names": (
        with_prefix("x.", {k.replace("conv", "c"): v for k, v in MINE.items()}),
        "39 of its 44 tensors match; only the file has c1.weight, layer1.0.c1.weight, layer1.0.c2.weight and 2 more; "
        "only the model has conv1.weight, layer1.0.conv1.weight, layer1.0.conv2.weight and 2 more",
    ),
    "another network's tensor": ({**MINE, "layer9.weight": torch.ones(2)}, "only the file has layer9.weight"),
    "an escape code": ({**MINE, "\x1b[31m": torch.ones(2)}, r"only the file has \x1b[31m"),
    "NaN": ({**MINE, "fc.bias": MINE["fc.bias"] * float("nan")}, "fc.bias holds NaN"),
    "too large": ({**MINE, "fc.bias": MINE["fc.bias"].double() + 1e300}, "fc.bias holds infinite numbers"),
    "integers": ({**MINE, "fc.bias": MINE["fc.bias"].int()}, "fc.bias holds int32 numbers"),
    "complex": ({**MINE, "fc.bias": MINE["fc.bias"].cfloat()}, "fc.bias holds complex64 numbers"),
    "sparse": ({**MINE, "fc.bias": MINE["fc.bias"].to_sparse()}, "fc.bias is no plain tensor (sparse tensors)"),
    "expanded": ({**MINE, "fc.bias": torch.ones(1).expand(10)}, "fc.bias is no plain tensor (tensors of more values"),
    "meta": (
        as_float(lambda t: t.to("meta")),
        "conv1.weight is no plain tensor (tensors without values",
    ),
    "arrays": ({k: v.numpy() for k, v in MINE.items()}, "there are only NumPy arrays"),
    "settings": (options(), "holds no tensors by name (it is an object of argparse.Namespace)"),
    "numbers": ({"lr": 0.1, "epoch": 3}, "holds no tensors by name (its keys are lr, epoch)"),
    "a run whose method is part of the model": (
        with_prefix("student.") | {"method.head.weight": torch.ones(2)},
        "is the whole model of a run whose method is part of it, such as simkd",
    ),
}


@pytest.mark.parametrize("what", MISFITS)
def test_what_does_not_fit_shows_both_sides(tmp_path: Path, what: str) -> None:
    content, message = MISFITS[what]
    assert message in error(saved(content, tmp_path / "w.pth"))


def test_a_network_of_half_the_width_is_compared_by_its_names(tmp_path: Path) -> None:
    """Its outer layers have the shapes of the wider one's inner layers."""
    file = saved(with_prefix("module."), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"8 of its 44 tensors match; .* 35 more .* the prefix `module\.`"):
        load_weights(network(name="digits_net_w8"), "digits_net_w8", file)


def as_bytes(content: Any, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, "")
    return buffer.getvalue()


OTHER_FILES = {
    "is empty": b"",
    "is a Git LFS pointer: fetch the file itself by `git lfs pull`": b"version https://git-lfs.github.com/spec/v1\noid",
    "is a web page ('Sign in'), not the file": b"\n<html><head><title>\nSign in</title>",
    "is a JSON file": b'{"error": "not found"}',
    "is the index of weights that are split over m-1.safetensors": json.dumps({"weight_map": {"a": "m-1.safetensors"}}),
    "is the text of a link, ../../blobs/6a7b8c": b"../../blobs/6a7b8c",
    "is a text that begins with 'lr: 0.1'": b"lr: 0.1",
    "is a damaged tar archive": bytes(257) + b"ustar" + bytes(400),
    "is compressed by gzip": b"\x1f\x8b\x08",
    "is a NumPy array": b"\x93NUMPY\x01",
    "is an archive of NumPy arrays": archive("a.npy"),
    "is a TorchScript archive": archive("net/data.pkl", "net/code/net.py", "net/constants.pkl"),
    "is a zip archive of net.pth, readme.txt": archive("net.pth", "readme.txt"),
    "is a model of ONNX or TensorFlow": b"\x08\x07\x12\x07pytorch",
    "is a plain pickle, not torch.save's": b"\x80\x04N.",
    "holds nothing but zeros where it begins": bytes(600),
    "is no checkpoint, or a damaged one": b"caf\xe9",
    "is cut short or damaged: 5,000 bytes of an archive": as_bytes(MINE)[:5000],
    "is cut short or damaged: 9,000 of at least": as_bytes(MINE, legacy=True)[:9000],
    "is damaged or cut short: its list of tensors": as_bytes(MINE, legacy=True)[:500],
    "is damaged or cut short: its list": as_bytes(MINE).replace(b"little", b"e\r\nlit"),  # copied as text
    "is an archive of torch.save that was packed again": archive("net/data.pkl", "net/data/0"),
}


@pytest.mark.parametrize("message", OTHER_FILES)
def test_another_file_is_named_for_what_it_is(tmp_path: Path, message: str) -> None:
    content, file = OTHER_FILES[message], tmp_path / "w.safetensors"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    assert error(file).startswith(message)


def test_the_format_is_told_by_the_content(tmp_path: Path) -> None:
    save_file(MINE, tmp_path / "net.pth")
    assert load(tmp_path / "net.pth") == ""
    assert load(saved(MINE, tmp_path / "net.safetensors")) == ""
    assert load(saved(MINE, tmp_path / "6a7b8c", legacy=True)) == ""
    whole = (tmp_path / "net.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[:-9])
    assert error(tmp_path / "cut.pth") == (
        f"is a safetensors file that is cut short: {len(whole) - 9:,} of {len(whole):,} bytes"
    )


class FirstPickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> str | None:
        return str(id(value)) if isinstance(value, Tensor) else None


def as_first_versions_wrote(tensors: State) -> bytes:
    """Return a tar archive of torch's first versions, which it still reads."""
    storages, views, content = io.BytesIO(), io.BytesIO(), io.BytesIO()
    for part in (storages, views):
        pickle.dump(len(tensors), part, 2)
    for i, tensor in enumerate(tensors.values()):
        kind = tensor.type().removeprefix("torch.").replace("Tensor", "Storage")
        pickle.dump((i, "cpu", getattr(torch, kind)), storages, 2)
        storages.write(struct.pack("<q", tensor.numel()) + tensor.numpy().tobytes())
        pickle.dump((id(tensor), i, type(tensor)), views, 2)
        numbers = (*tensor.shape, *tensor.stride(), 0)
        views.write(struct.pack(f"<i4x{len(numbers)}q", tensor.ndim, *numbers))
    pickle.dump([], storages, 2)
    FirstPickler(content, 2).dump({"model": tensors})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, part in (("storages", storages), ("tensors", views), ("pickle", content)):
            info = tarfile.TarInfo(name)
            info.size = part.tell()
            part.seek(0)
            archive.addfile(info, part)
    return buffer.getvalue()


def test_a_file_of_torchs_first_versions_loads(tmp_path: Path) -> None:
    file = tmp_path / "old.pth.tar"
    file.write_bytes(as_first_versions_wrote(MINE))
    expected = torch.load(file, weights_only=False)["model"]  # our own file
    assert load(file, expected) == "taken from `model`"
    file.write_bytes(file.read_bytes()[:9000])
    assert error(file) == "is cut short"


def test_changed_bytes_are_one_message_or_no_matter(tmp_path: Path) -> None:
    save_file(MINE, tmp_path / "net")
    sources = [(tmp_path / "net").read_bytes(), as_first_versions_wrote(MINE)]
    sources += [as_bytes({"net": MINE, "args": options()}, legacy) for legacy in (False, True)]
    net, noise = network(), random.Random(0)
    for i in range(300):
        content = bytearray(sources[i % 4])
        for _ in range(noise.randrange(1, 4)):
            content[noise.randrange(4000 if i % 8 < 4 else len(content))] = noise.randrange(256)
        file = tmp_path / "changed"
        file.write_bytes(content)
        try:
            load_weights(net, NAME, file)
        except WeightsError as e:
            assert str(e).startswith(f"weights {file}: ") and str(e).isprintable() and len(str(e)) < 900


@pytest.mark.parametrize(
    ("place", "begins", "holds"),
    [
        ({"key": "stduent"}, "has an unknown key 'stduent'; did you mean 'student'? Valid: ", ""),
        ({"prefix": "net"}, "not the weights of", "only the file has .conv1.weight"),  # the dot is missing
        ({"key": "teacher", "prefix": "x."}, "has no names that begin with the prefix 'x.'; they are", ""),
    ],
)
def test_a_place_that_does_not_fit_is_answered_with_those_that_do(
    place: dict[str, str], begins: str, holds: str, tmp_path: Path
) -> None:
    text = error(saved(TWO, tmp_path / "two.pth"), **place)
    assert text.startswith(begins) and holds in text
    assert f"; what fits {NAME}: key `student` with prefix `net.`; key `teacher.net`" in text
    plain = error(saved(MINE, tmp_path / "plain.pth"), key="model")
    assert plain == f"has no key 'model': it is a state dict itself; what fits {NAME}: no key and no prefix"


def test_evaluate_says_what_it_took_and_lets_choose(tmp_path: Path) -> None:
    file = saved({"model": MINE, "model_ema": OTHER}, tmp_path / "both.pth")
    asked = ("evaluate", "--dataset", "digits", "--model", NAME, "--weights", file, "--json")
    plain = run_command(*asked)
    said = "taken from `model`, averaged weights (EMA) are there too: key `model_ema`"
    assert (plain.code, plain.err) == (0, f"weights {file}: {said}\n")
    chosen = run_command(*asked, "--key", "model_ema", "--prefix", "")
    assert chosen.code == 0 and json.loads(chosen.out)["loss"] != json.loads(plain.out)["loss"]
    assert "unknown key 'ema'" in run_command(*asked, "--key", "ema").error
    assert "leave them out with --run" in run_command("evaluate", "--run", "a", "--key", "model").error
    assert run_command(*asked[:-2], tmp_path).error.endswith("is a folder; expected a file in it, such as both.pth")

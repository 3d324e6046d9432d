"""Checkpoints with names of a library's older versions, which the library translates."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision  # type: ignore[import-untyped]
from torch import Tensor, nn

from harness.models.checkpoints import WeightsError, load_weights
from harness.models.initial_weights import load_initial_weights
from harness.models.library_models import LibraryNet, library_net

pytestmark = pytest.mark.slow


def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


TIMMS = "names of an older timm or of the model's authors, translated by timm"
TORCHVISIONS = TIMMS.replace("timm", "torchvision")


def small_swin(classes: int) -> nn.Module:
    sizes = {"depths": [1, 1], "num_heads": [1, 2], "embed_dim": 8, "img_size": 32, "window_size": 4}
    return library_net("timm:swin_tiny_patch4_window7_224", classes, 3, sizes)


def swin_of_timm_0_6(name: str) -> str:
    name = re.sub(r"layers\.(\d)\.downsample", lambda match: f"layers.{int(match[1]) - 1}.downsample", name)
    return name.replace("head.fc.", "head.")


def small_convnext(classes: int) -> nn.Module:
    return library_net("timm:convnext_atto", classes, 3, {"depths": [1] * 4, "dims": [4] * 4, "conv_mlp": False})


def convnext_of_its_authors(name: str) -> str:
    name = name.replace("stem.", "downsample_layers.0.").replace(".blocks.", ".").replace("head.norm", "norm")
    name = re.sub(r"stages\.(\d)\.downsample", r"downsample_layers.\1", name).replace("head.fc.", "head.")
    return name.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")


def small_vit(classes: int) -> nn.Module:
    vit = torchvision.models.VisionTransformer(32, 16, 1, 1, 8, 8, num_classes=classes)
    return LibraryNet(vit, (3, 32, 32))


def vit_of_torchvision_0_11(name: str) -> str:
    return name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2.")


def small_densenet(classes: int) -> nn.Module:
    net = torchvision.models.DenseNet(4, (1, 1), 4, num_classes=classes)
    return LibraryNet(net, (3, 32, 32))


def densenet_with_dots(name: str) -> str:
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))", r"\1.", name)


RENAMED = [
    (small_swin, swin_of_timm_0_6, TIMMS),
    (small_convnext, convnext_of_its_authors, TIMMS),
    (small_vit, vit_of_torchvision_0_11, TORCHVISIONS),
    (small_densenet, densenet_with_dots, TORCHVISIONS),
]


@pytest.mark.parametrize(("build", "older", "note"), RENAMED)
def test_older_names_are_translated_by_the_library(build: Any, older: Any, note: str, tmp_path: Path) -> None:
    """Also in a checkpoint with other content, and where a student starts from it."""
    teacher = build(10).eval()
    state = {older(key): tensor for key, tensor in teacher.state_dict().items()}
    assert state.keys() != teacher.state_dict().keys()
    masks = {"layers.0.blocks.1.attn_mask": torch.zeros(4, 4)} if build is small_swin else {}
    torch.save({"optimizer": {"momentum": torch.ones(3)}, "model": state | masks}, file := tmp_path / "w.pth")
    model = build(10).eval()
    assert load_weights(model, "it", file).part == f"taken from `model`, {note}"
    assert torch.equal(model(images()).logits, teacher(images()).logits)
    student = build(7)
    text = load_initial_weights(student, build(8), "it", file)
    assert "random numbers for 7 classes: the file's is for 10" in text and text.endswith(note)
    first = next(iter(student.state_dict()))
    assert torch.equal(student.state_dict()[first], teacher.state_dict()[first])
    assert "its last layer" in load_initial_weights(build(10), build(11), "it", file)


def test_older_names_that_do_not_fit_are_refused_with_both_sides(tmp_path: Path) -> None:
    state = {swin_of_timm_0_6(key): tensor for key, tensor in small_swin(10).state_dict().items()}
    torch.save(state, file := tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"last layer \(head.fc\) has 10 classes, the model it 7 \(names of"):
        load_weights(small_swin(7), "it", file)
    table = "layers.0.blocks.0.attn.relative_position_bias_table"
    torch.save(state | {table: torch.zeros(9, 1)}, file)
    with pytest.raises(WeightsError, match=rf"{table} is \(9, 1\) in the file, \(49, 1\) in the model"):
        load_weights(small_swin(10), "it", file)  # and not interpolated, as timm would
    torch.save({"a": state, "b": {key: tensor + 1 for key, tensor in state.items()}}, file)
    with pytest.raises(WeightsError, match="holds 2 state dicts that fit it: state `key`"):
        load_weights(small_swin(10), "it", file)
    torch.save({"layers.0.downsample.reduction.weight": torch.ones(1), "x.attn_mask": torch.ones(1)}, file)
    with pytest.raises(WeightsError, match="0 of its 37 tensors match; only the file has layers.0.downsample"):
        load_weights(small_swin(10), "it", file)

"""Models of a user's own and constructor arguments: read, checked and built."""

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.errors import UserError
from harness.models.taps import describe_taps
from harness.models.zoo import build_model
from harness.spec import tasks
from harness.spec.expand import parse_only
from harness.spec.model_reference import ModelReference, split_names
from harness.spec.models import check_images
from harness.spec.schema import Pair
from harness.spec.tasks import DATASETS
from harness.training.trained_model import trained_model
from tests.support.sciences import make_science

NETS = '''
"""Nets."""
from dataclasses import dataclass
from functools import partial
import torch
from torch import nn
from harness.models.taps import ConvNet
from .blocks import block

class TinyNet(nn.Module):
    def __init__(self, num_classes, in_channels=3, width: int = 4, drop: float = 0, sizes=(3, 3)):
        super().__init__()
        self.first, self.second, self.third = block(in_channels, width), block(width, width, 2), block(width, width, 2)
        self.fc = nn.Linear(width, num_classes)
    def forward(self, x):
        return self.fc(self.third(self.second(self.first(x))).mean((2, 3)))

class Sub(TinyNet): ...
Alias = TinyNet
wide = partial(TinyNet, width=8)
short = lambda num_classes, in_channels, width=4: TinyNet(num_classes, in_channels, width)
def any_net(**kwargs): return TinyNet(**kwargs)
def grey(num_classes): return TinyNet(num_classes, 1)
class Needs(TinyNet):
    def __init__(self, num_classes, width): super().__init__(num_classes, 3, width)
class NoClasses(nn.Module): ...
class Plain:
    def __init__(self, num_classes, in_channels): ...
class Outer:
    class Inner(TinyNet): ...
class Two(TinyNet):
    def forward(self, x): return super().forward(x), x
class More(TinyNet):
    def __init__(self, num_classes, in_channels): super().__init__(num_classes + 1, in_channels)
class Reads(TinyNet):
    def forward(self, x): return super().forward(x) if x.sum().item() < 1e9 else x
class Breaks(TinyNet):
    def forward(self, x): raise RuntimeError("no luck")
class Tapped(ConvNet):
    tap_names = ("middle",)
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(in_channels, 4, 3), nn.Linear(4, num_classes)
    def run(self, images, taps):
        embedding = taps("middle", self.conv(images)).mean((2, 3))
        return embedding, self.fc(embedding)
'''
BLOCKS = """
from torch import nn
def block(inputs, outputs, stride=1):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_nets").mkdir()
    (folder / "own_nets/__init__.py").write_text("from .nets import TinyNet\nopen('ran', 'w')\n")
    (folder / "own_nets/nets.py").write_text(NETS)
    (folder / "own_nets/blocks.py").write_text(BLOCKS)
    return folder


@pytest.fixture
def here(package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(package)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return package


@pytest.mark.parametrize(
    ("stated", "normal"),
    [
        ("own_nets.nets:TinyNet", None),
        ("own_nets:TinyNet(width=8)", None),
        ("own_nets.nets:TinyNet(width=4, drop=0.0, sizes=[3,3])", "own_nets.nets:TinyNet"),
        ("own_nets.nets:TinyNet( width = 8.0,drop=1 )", "own_nets.nets:TinyNet(drop=1.0, width=8)"),
        ("own_nets.nets:Sub(width=8)", None),
        ("own_nets.nets:Alias(width=8)", None),
        ("own_nets.nets:short(width=8)", None),
        ("own_nets.nets:wide", None),
        ("own_nets.nets:any_net(width=8)", None),
        ("own_nets.nets:Needs(width=8)", None),
        ("resnet20()", "resnet20"),
        ("resnet20(widths=[16, 16, 32, 64])", "resnet20"),
        ("resnet20(widths=[8, 8, 16, 32])", None),
        ("torchvision:vit_b_16(image_size=32)", None),
    ],
)
def test_one_text_stands_for_a_model_and_its_arguments(here: Path, stated: str, normal: str | None) -> None:
    (here / "ran").unlink(missing_ok=True)
    assert tasks.resolve_model(stated) == (normal or stated) == tasks.resolve_model(normal or stated)
    assert DATASETS["digits"].task.kinds(stated) == ("classification",)
    assert not (here / "ran").exists(), "planning only reads it"


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("own_nets.nets.TinyNet", "no model named .*; is it your own? write own_nets.nets:TinyNet"),
        ("own_nets.net:TinyNet", "no module 'own_nets.net' on the Python path .*; did you mean 'own_nets.nets'?"),
        ("own_nets.nets.py:TinyNet", "; write own_nets.nets:TinyNet"),
        ("own_nets/nets.py:TinyNet", "expected a name such as 'package.module:Name'"),
        ("own_nets.nets:TinyNte", "unknown class or function 'TinyNte'; did you mean 'TinyNet'?"),
        ("own_nets.nets:Inner", "it is inside Outer: only a name of the module itself can be imported"),
        ("own_nets.nets:NoClasses", "must take num_classes"),
        ("own_nets.nets:Needs", "its argument width has no default; write {name: own_nets.nets:Needs, params: {width"),
        ("own_nets.nets:TinyNet(wdth=8)", "unknown argument 'wdth'; did you mean 'width'?"),
        ("own_nets.nets:TinyNet(num_classes=8)", "num_classes is set already"),
        ("own_nets.nets:TinyNet(width=NaN)", "expected a model such as NAME(key=value"),
        ("own_nets.nets:TinyNet(width=8, width=9)", "expected a model such as NAME(key=value"),
        ("own_nets.nets:TinyNet(width=8", "inside {...} it needs quotes"),
        ("subprocess:run", "subprocess is a module of Python itself, not yours"),
        ("torchvison:resnet18", "did you mean torchvision:resnet18?"),
        ("resnet20(depth=8)", "depth is set already"),
        ("WRN-40-2(x=1)", "wrn_40_2: unknown argument 'x'"),
        ("fasterrcnn_resnet18_fpn(x=1)", "fasterrcnn_resnet18_fpn takes no params"),
        ("torchvision:vit_b_16(img_size=32)", "no argument named 'img_size' in its source; nearest: .*image_size"),
        ('torchvision:resnet18(weights="DEFAULT")', "weights is set by the harness, or would load something"),
    ],
)
def test_a_wrong_model_or_argument_is_named(here: Path, stated: str, message: str) -> None:
    pattern = ".*".join(map(re.escape, message.split(".*")))
    with pytest.raises(ValueError, match=pattern):
        tasks.resolve_model(stated)


def test_no_argument_makes_timm_load_a_file() -> None:
    if importlib.util.find_spec("timm") is None:  # importing it takes seconds
        pytest.skip("needs timm")
    for key in ("checkpoint_path", "pretrained", "pretrained_cfg_overlay", "cache_dir", "features_only", "num_classes"):
        with pytest.raises(ValueError, match=f"{key} is set by the harness, or would load something"):
            tasks.resolve_model(f'timm:resnet18({key}="x")')
    assert tasks.resolve_model("timm:vit_tiny_patch16_224(img_size=32)") == "timm:vit_tiny_patch16_224(img_size=32)"
    assert tasks.resolve_model("timm:deit_tiny_patch16_224(depth=2)") == "timm:deit_tiny_patch16_224(depth=2)"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"name": "resnet8", "params": {"a": float("inf")}}, "params a: expected a number"),
        ({"name": "resnet8", "params": {"a": {1: 2}}}, "params a: expected a number"),
        ({"name": "resnet8", "params": {"a": {1, 2}}}, "params a: expected a number"),
        ({"name": "resnet8(a=1)", "params": {"a": 1}}, "argument a is stated twice"),
        ({"name": "resnet8", "parms": {}}, "unknown key 'parms' of a model"),
    ],
)
def test_arguments_are_what_a_text_can_hold(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelReference.of(value)


def test_names_on_the_command_line_may_have_commas_in_their_arguments(here: Path) -> None:
    assert split_names('a,b(x=[1, 2], y=")"),c') == ["a", 'b(x=[1, 2], y=")")', "c"]
    student = {"name": "own_nets.nets:TinyNet", "params": {"width": 8, "drop": 0.5}}
    pair = Pair.model_validate({"teacher": "resnet8", "student": student})

    class Sweep:
        methods, pairs, seeds = ("kd",), (pair,), (0,)

    only = parse_only(["student=own_nets.nets:TinyNet(width=8,drop=0.5)"], Sweep())  # type: ignore[arg-type]
    assert only == {"student": {pair.student}}


def test_a_model_for_three_channels_is_refused_for_grey_images(here: Path) -> None:
    with pytest.raises(ValueError, match="takes no in_channels, dataset digits has images of 1 channel, not 3"):
        check_images("own_nets.nets:grey", "digits", (1, 8, 8))
    check_images("own_nets.nets:TinyNet(width=8)", "digits", (1, 8, 8))
    check_images("own_nets.nets:grey", "cifar100", (3, 32, 32))


@pytest.mark.parametrize("name", ["TinyNet(width=8)", "wide", "any_net(width=8)", "short(width=8)"])
def test_a_plain_module_gets_taps_and_keeps_its_state_dict(here: Path, name: str) -> None:
    torch.manual_seed(0)
    net = build_model(f"own_nets.nets:{name}", 10, 1, (8, 8))
    assert set(net.state_dict()) >= {"first.0.weight", "fc.weight"}
    spec = describe_taps(net, (1, 8, 8))
    assert spec.embedding_dim == 8 and spec.num_classes == 10
    assert spec.channels["module.second"] == 8 and "stage1" in spec.channels


def test_a_net_with_taps_of_its_own_is_used_as_it_is(here: Path) -> None:
    net = build_model("own_nets.nets:Tapped", 10, 1, (8, 8))
    assert net.tap_names == ("middle",) and set(net.state_dict()) == {
        "conv.weight",
        "conv.bias",
        "fc.weight",
        "fc.bias",
    }


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("Plain", UserError, "expected a torch.nn.Module, its result is <own_nets.nets.Plain"),
        ("Two", UserError, "forward must return the logits as one tensor, found a tuple of 2"),
        ("More", UserError, "forward must return logits of shape 2x10 for 2 images, found 2x11"),
        ("Reads", UserError, r"on torch's device `meta`, which fails: .* \(.*nets.py:\d+\); read no tensor's value"),
        ("Breaks", RuntimeError, "^no luck$"),
        ("wide(wdth=8)", UserError, "unexpected keyword argument 'wdth'"),
    ],
)
def test_a_model_that_is_no_classifier_is_reported(here: Path, name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_model(f"own_nets.nets:{name}", 10, 1, (8, 8))


def test_arguments_reach_libraries_and_the_catalogue() -> None:
    assert build_model("resnet8(widths=[4, 4, 8, 8])", 10).get_parameter("conv1.weight").shape[0] == 4
    net = build_model("torchvision:mobilenet_v2(width_mult=0.1)", 10)
    assert sum(p.numel() for p in net.parameters()) < 300_000 and isinstance(net, nn.Module)


def test_a_model_that_only_a_record_names_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "open('ran', 'w')\nfrom torch import nn\ndef net(num_classes, in_channels): return nn.Linear(1, num_classes)\n"
    )
    (tmp_path / "planted_net.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    for science in (make_science("planted_net:net"), make_science("planted_net:net(a=1)")):
        with pytest.raises(UserError, match="no model named 'planted_net:net' in the harness: .* by --own-model"):
            trained_model(science, tmp_path / "none", None)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(Exception, match="mat1 and mat2|Linear|shape"):
        trained_model(make_science("planted_net:net"), tmp_path / "none", None, own_models=["planted_net:net"])
    assert (tmp_path / "ran").exists(), "the user has named it"

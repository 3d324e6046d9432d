"""Networks by name, as far as they are known before they are built. Imports no torch, so that planning can use it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from harness.phrases import plural
from harness.spec import own_models
from harness.spec.library_models import is_library_model
from harness.spec.source_code import CHECKOUT, parse

CIFAR = (3, 32, 32)
DIGITS = (1, 8, 8)
STEP = 4  # the CIFAR ResNets halve the image twice


@dataclass(frozen=True)
class ModelEntry:
    """A network of the catalogue: how it is built."""

    factory: str  # "package.module:callable"; takes num_classes and in_channels, and `kwargs`
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    image_shape: tuple[int, int, int] = CIFAR  # (C, H, W) it is meant for
    least_side: int | None = None  # it also takes smaller square images down to this side, in steps of STEP

    def takes(self, shape: tuple[int, int, int]) -> bool:
        """Return whether it takes images (C, H, W)."""
        if shape == self.image_shape or self.least_side is None:
            return shape == self.image_shape
        (channels, height, width), (own, largest, _) = shape, self.image_shape
        return channels == own and height == width and height in range(self.least_side, largest, STEP)


@dataclass(frozen=True)
class ModelFacts:
    """A network's size, measured for the catalogue's image shape and 100 classes (digits: 10)."""

    params: int
    macs: int  # multiply-accumulates of one image's forward pass: convolutions and linear layers
    taps: dict[str, tuple[int, int, int]]  # tap -> (C, H, W), from input to output


def _resnet(depth: int, **kwargs: Any) -> ModelEntry:
    return ModelEntry("harness.models.resnet:resnet", {"depth": depth, **kwargs}, least_side=8)


def _wrn(depth: int, width: int) -> ModelEntry:
    return ModelEntry("harness.models.wrn:WideResNet", {"depth": depth, "width": width})


def _vgg(*convs: int) -> ModelEntry:
    return ModelEntry("harness.models.vgg:VGG", {"convs": convs})


def _digits(width: int) -> ModelEntry:
    """Return a small residual network for scikit-learn's 8x8 grey digits; one core trains it in seconds.

    It has one block per stage: `width` / 2 channels at 8x8, then `width` at 4x4 and 2 `width` at 2x2.
    """
    kwargs = {"blocks": 1, "widths": (width // 2, width, 2 * width), "first_stride": 2}
    return ModelEntry("harness.models.resnet:ResNet", kwargs, DIGITS)


CATALOG: dict[str, ModelEntry] = {
    **{f"resnet{depth}": _resnet(depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
    "resnet8x4": _resnet(8, widths=(32, 64, 128, 256)),
    "resnet32x4": _resnet(32, widths=(32, 64, 128, 256)),
    "ResNet50": ModelEntry("harness.models.resnet50:ResNet50"),
    **{f"wrn_{depth}_{width}": _wrn(depth, width) for depth in (16, 40) for width in (1, 2)},
    "vgg8": _vgg(1, 1, 1, 1, 1),
    "vgg11": _vgg(1, 1, 2, 2, 2),
    "vgg13": _vgg(2, 2, 2, 2, 2),
    "vgg16": _vgg(2, 2, 3, 3, 3),
    "vgg19": _vgg(2, 2, 4, 4, 4),
    "MobileNetV2": ModelEntry("harness.models.mobilenetv2:MobileNetV2"),
    "ShuffleV1": ModelEntry("harness.models.shufflenet:ShuffleV1"),
    "ShuffleV2": ModelEntry("harness.models.shufflenet:ShuffleV2"),
    **{f"digits_net_w{width}": _digits(width) for width in (4, 8, 16, 32)},
}

ALIASES = {
    "ShuffleNetV1": "ShuffleV1",
    "ShuffleNetV2": "ShuffleV2",
    "shufflenetv1": "ShuffleV1",
    "shufflenetv2": "ShuffleV2",
    "mobilenetv2": "MobileNetV2",
    **{f"WRN-{depth}-{width}": f"wrn_{depth}_{width}" for depth in (16, 40) for width in (1, 2)},
}


def check_images(name: str, dataset: str, image_shape: tuple[int, int, int]) -> None:
    """Check that a classifier takes a dataset's images (C, H, W). timm's models are not checked.

    Raises:
        ValueError: it does not.
    """
    if own_models.is_own_model(name):
        signature = own_models.describe(own_models.code_of(name).name)
        if image_shape[0] != 3 and not signature.takes("in_channels"):
            channels = plural(image_shape[0], "channel")
            raise ValueError(f"{name} takes no in_channels, dataset {dataset} has images of {channels}, not 3")
        return
    if name.startswith("timm:"):
        return
    entry = ModelEntry("", image_shape=(3, *image_shape[1:]))
    if not is_library_model(name):
        entry = CATALOG[name.partition("(")[0]]
    if not entry.takes(image_shape):
        sizes = ["x".join(map(str, s)) for s in (entry.image_shape, image_shape)]
        raise ValueError(f"{name} is for {sizes[0]} images, dataset {dataset} has {sizes[1]}")


def checked_params(name: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that a sweep states for a model of the catalogue, without those that are its defaults.

    Raises:
        ValueError: it does not take them.
    """
    if not params:
        return {}
    if name not in CATALOG:
        raise ValueError(f"{name} takes no params")
    module, _, factory = CATALOG[name].factory.partition(":")
    signature = own_models.of_function(parse(CHECKOUT.joinpath(*module.split(".")).with_suffix(".py")), factory)
    return signature.normal_form(name, params, fixed=(*own_models.GIVEN, *CATALOG[name].kwargs))


def has_model_facts(name: str) -> bool:
    """Return whether a model's size is known. A timm or torchvision model's is not, without building it."""
    return name in _facts_table()


def model_facts(name: str) -> ModelFacts:
    """Return size, cost and taps of a model of the catalogue.

    ``python -m harness.models.facts`` writes the table.
    """
    facts = _facts_table()[ALIASES.get(name, name)]
    taps = {tap: (shape[0], shape[1], shape[2]) for tap, shape in facts["taps"].items()}
    return ModelFacts(facts["params"], facts["macs"], taps)


@cache
def _facts_table() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("model_facts.json").read_text())

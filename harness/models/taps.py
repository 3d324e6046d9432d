"""The common parts of every network of the zoo: taps, He initialisation, and the description that a method gets."""

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.renormalisation import Renormalisation
from methods.base import CAM, Head, Outputs, TapSpec, map_read_by_head


class AllCollected(Exception):
    """A signal that every requested map has been collected, which ends the forward pass."""


class Taps:
    """The feature maps that are collected while a network runs."""

    def __init__(self, requested: Collection[str], stop_at_last: bool = False):
        self.requested, self.stop_at_last = requested, stop_at_last
        self.features: dict[str, Tensor] = {}

    def __call__(self, name: str, x: Tensor) -> Tensor:
        """Keep `x` if it was requested; return it unchanged.

        Raises:
            AllCollected: it was the last one and `stop_at_last` is set.
        """
        if name in self.requested:
            self.features[name] = x
            if self.stop_at_last and len(self.features) == len(set(self.requested)):
                raise AllCollected
        return x

    def relu(self, name: str, x: Tensor) -> Tensor:
        """Apply ReLU to `x`: in place, unless `x` is to be kept as tap `name`."""
        return F.relu(self(name, x), inplace=name not in self.requested)


def check_taps(requested: Collection[str], names: Collection[str]) -> None:
    """Check that all taps are those of a model.

    Raises:
        ValueError: a requested tap is none of the model's ``names``.
    """
    unknown = [name for name in requested if name not in names]
    if unknown:
        raise ValueError(f"no tap named {unknown[0]!r}; this model has: {', '.join(names)}")


class HeadPlace(NamedTuple):
    """The place of a linear layer that reads the mean over positions of one of a model's maps."""

    layer: str  # the module's path, which a copy of the model shares
    tap: str  # see ``Head``


class ConvNet(nn.Module):
    """An image classifier whose feature maps can be read by name.

    Subclasses set `tap_names`, ordered from input to output, and write `run`. A tap named ``stage1.preact`` is the
    map before the batch norm's ReLU that belongs to ``stage1``. A map that was returned is never changed in place.

    Once described, a model that ends in the mean of a map and a linear layer also offers ``cam``, that layer's values
    at each position, without its bias.
    """

    tap_names: tuple[str, ...]
    foldable: ClassVar[bool] = True  # whether batch norms may vanish into convolutions once it is a teacher

    def __init__(self) -> None:
        super().__init__()
        self.renormalisation: Renormalisation | None = None  # of the images, where the weights expect another
        self.head_place: HeadPlace | None = None  # as `describe_taps` finds it

    def run(self, images: Tensor, taps: Taps) -> tuple[Tensor, Tensor]:
        """Return embedding (B, D) and logits (B, classes) of `images` (B, C, H, W); call `taps` with each tap."""
        raise NotImplementedError

    def forward(self, x: Tensor, taps: Collection[str] = ()) -> Outputs:
        collected = Taps(self._read_for(taps))
        embedding, logits = self.run(self._renormalised(x), collected)
        return Outputs(logits, embedding, self._with_cam(collected.features, taps))

    def maps(self, x: Tensor, taps: Collection[str]) -> dict[str, Tensor]:
        """Return the maps of `taps` for images (B, C, H, W) without running the layers behind the last of them.

        A model of another library runs to its end, so its batch norms behind the last map also count the images.
        """
        collected = Taps(self._read_for(taps), stop_at_last=True)
        if taps:
            with suppress(AllCollected):
                self.run(self._renormalised(x), collected)
        return self._with_cam(collected.features, taps)

    def _read_for(self, taps: Collection[str]) -> Collection[str]:
        """Return the maps to collect for the requested taps.

        Raises:
            ValueError: the model has no such tap.
        """
        if self.head_place is None or CAM in self.tap_names or CAM not in taps:
            check_taps(taps, self.tap_names)
            return taps
        own = [tap for tap in taps if tap != CAM]
        check_taps(own, self.tap_names)
        return (*own, self.head_place.tap)

    def _with_cam(self, features: dict[str, Tensor], taps: Collection[str]) -> dict[str, Tensor]:
        """Return the requested maps; a map that has been collected for ``cam`` alone is left out."""
        if CAM not in taps or CAM in features:
            return features
        assert self.head_place is not None
        # Here and not in a method: on several ranks the weight's gradient must come from the rank's own images.
        weight = self.get_submodule(self.head_place.layer).weight
        assert isinstance(weight, Tensor)
        cam = F.conv2d(map_read_by_head(features, self.head_place.tap), weight[:, :, None, None])
        return {tap: x for tap, x in features.items() if tap in taps} | {CAM: cam}

    def _renormalised(self, images: Tensor) -> Tensor:
        return images if self.renormalisation is None else self.renormalisation(images)


class ReluBlock(nn.Module):
    """A block that ends in a ReLU; subclasses write `preact`, the map before it."""

    def preact(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.preact(x), inplace=True)


class ReluStages(ConvNet):
    """A network of a stem, stages ``layer1``, ``layer2``, ... of `ReluBlock`s, and a linear layer.

    A stage's taps are its last block's map after and before the ReLU.
    """

    conv1: nn.Conv2d
    bn1: nn.BatchNorm2d
    linear_name: ClassVar[str] = "linear"  # as checkpoints know the last layer

    def run(self, images: Tensor, taps: Taps) -> tuple[Tensor, Tensor]:
        x = taps("stem", F.relu(self.bn1(self.conv1(images)), inplace=True))
        layers = [module for name, module in self.named_children() if name.startswith("layer")]
        for i, layer in enumerate(layers, start=1):
            *first, last = layer.children()
            for block in first:
                x = block(x)
            assert isinstance(last, ReluBlock)
            x = taps(f"stage{i}", taps.relu(f"stage{i}.preact", last.preact(x)))
        embedding = x.mean((2, 3))
        return embedding, self.get_submodule(self.linear_name)(embedding)


def build_stage(
    block: Callable[[int, int, int], nn.Module], in_channels: int, channels: int, blocks: int, stride: int
) -> nn.Sequential:
    """Return ``blocks`` blocks in a row. The first has this stride and changes the number of channels."""
    return nn.Sequential(
        block(in_channels, channels, stride), *(block(channels, channels, 1) for _ in range(blocks - 1))
    )


def stage_taps(stages: int) -> tuple[str, ...]:
    """Return the taps of a stem and `stages` stages whose pre-activation is computed before the map itself."""
    pairs = ((f"stage{i}.preact", f"stage{i}") for i in range(1, stages + 1))
    return ("stem", *(name for pair in pairs for name in pair))


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size (at stride 1), without bias."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a 1x1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, groups=groups, bias=False)


def depthwise3x3(channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution of each channel by itself, without bias."""
    return nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False)


def init_convs(model: nn.Module) -> None:
    """Draw normal weights of variance 2 / (kernel area x output channels) and set biases to 0.

    Source: He et al. 2015, arXiv:1502.01852.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def init_linear(layer: nn.Linear) -> None:
    """Normal weights of standard deviation 0.01; zero bias."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)


def describe_taps(model: ConvNet, image_shape: tuple[int, int, int]) -> TapSpec:
    """Find the model's widths, sizes and head for images of (C, H, W) by running it once.

    The model is left as it was, but for the place of its head, which it notes for its tap ``cam``.
    """
    training = {module: module.training for module in model.modules()}
    weight = next(model.parameters())
    model.eval()
    try:
        with torch.no_grad():
            noise = torch.randn(1, *image_shape, generator=torch.Generator().manual_seed(0))
            outputs = model(noise.to(weight), model.tap_names)
    finally:
        for module, was_training in training.items():
            module.training = was_training
    place = model.head_place = None if weight.is_meta else find_head(model, outputs)
    maps = {name: outputs.features[name].shape for name in model.tap_names}
    if place and CAM not in maps:
        maps[CAM] = torch.Size((1, outputs.logits.shape[1], *maps[place.tap][2:]))
    return TapSpec(
        channels={name: shape[1] for name, shape in maps.items()},
        sizes={name: (shape[2], shape[3]) for name, shape in maps.items()},
        embedding_dim=outputs.embedding.shape[1],
        num_classes=outputs.logits.shape[1],
        head=read_head(model, place) if place else None,
    )


def read_head(model: nn.Module, place: HeadPlace) -> Head:
    """Return a model's head, whose tensors share the layer's memory."""
    layer = model.get_submodule(place.layer)
    assert isinstance(layer, nn.Linear)
    return Head(place.tap, layer.weight.detach(), layer.bias.detach())


def find_head(model: nn.Module, outputs: Outputs) -> HeadPlace | None:
    """Return the place of the linear layer that computes the logits, if it reads a map's mean."""
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and m.bias is not None}
    sizes = (outputs.embedding.shape[1], outputs.logits.shape[1])
    ends = {name: layer for name, layer in layers.items() if (layer.in_features, layer.out_features) == sizes}
    for name, layer in ends.items():
        if torch.allclose(layer(outputs.embedding), outputs.logits, rtol=1e-4, atol=1e-5):
            # Rather a stage, which has positions, than what a module has pooled of it.
            for tap in sorted(reversed(outputs.features), key=lambda tap: tap.startswith("module.")):
                mean = map_read_by_head(outputs.features, tap).mean((2, 3))
                if mean.shape == outputs.embedding.shape and torch.allclose(
                    mean, outputs.embedding, rtol=1e-4, atol=1e-5
                ):
                    return HeadPlace(name, tap)
    return None

"""Models of timm and torchvision, unchanged, with their feature maps readable by name."""

import copy
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.taps import ConvNet, Taps


class LibraryNet(ConvNet):
    """A model of another library around which nothing but taps is added; its state dict is the library's own.

    Taps are the maps (B, C, H, W) that its modules return:

    ``module.PATH``  of the module of that path, e.g. ``module.layer2.0.conv1``; of its last call, if it has several;
    ``stem``, ``stage1``, ``stage2``, ...  where timm's ``feature_info`` has them; in torchvision the last of the
                     outer modules of each size, if there are three sizes or more. The first is the stem if it is
                     higher than a third of the image.

    ``stage1.preact``, ...  what the ReLU that ends the stage is given, where a module of its own does that.

    A transformer's tokens are no maps. The embedding is what the last linear layer is given (after dropout, where the
    library puts one there), averaged over positions if that is a map.
    """

    foldable = False  # its modules are taps: what they return must stay what it was

    def __init__(self, net: nn.Module, image_shape: tuple[int, int, int]):
        super().__init__()
        probe = probe_taps(net, image_shape)
        stages = named_stages(net, probe.heights, image_shape[1])
        self._classifier = probe.classifier
        self._relus = {f"{name}.preact": probe.relus[path] for name, path in stages.items() if path in probe.relus}
        self._paths = stages | {f"module.{path}": path for path in probe.heights}
        of_stages = [tap for name in stages for tap in (f"{name}.preact", name) if tap in self._relus or tap == name]
        self.tap_names = (*of_stages, *(tap for tap in self._paths if tap not in stages))
        self.net = net

    def run(self, images: Tensor, taps: Taps) -> tuple[Tensor, Tensor]:
        collected: dict[str, Tensor] = {}

        def hook(tap: str) -> Any:
            # a copy: what comes after the module may change its map in place
            if tap in self._relus:
                relu = self.net.get_submodule(self._relus[tap])
                return relu.register_forward_pre_hook(
                    lambda _module, inputs: collected.update({tap: inputs[0].clone()})
                )
            module = self.net.get_submodule(self._paths[tap])
            return module.register_forward_hook(
                lambda _module, _inputs, output: collected.update({tap: output.clone()})
            )

        classifier = self.net.get_submodule(self._classifier)
        hooks = [classifier.register_forward_pre_hook(lambda _module, inputs: collected.update(embedding=inputs[0]))]
        requested = [tap for tap in self.tap_names if tap in taps.requested]
        hooks += [hook(tap) for tap in requested]
        try:
            logits = self.net(images)
        finally:
            for each in hooks:
                each.remove()
        for tap in requested:
            taps(tap, collected[tap])
        if not isinstance(logits, Tensor):  # inception_v3 and googlenet in training: the auxiliary heads' too
            logits = logits[0]
        embedding = collected["embedding"]
        return embedding.mean((2, 3)) if embedding.ndim == 4 else embedding, logits

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.net.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.net.load_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Called for a part of another network: put back what `state_dict` leaves out.
        for key in [key for key in state_dict if key.startswith(prefix)]:
            state_dict[f"{prefix}net.{key.removeprefix(prefix)}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


def library_net(name: str, num_classes: int, in_channels: int, params: Mapping[str, Any] | None = None) -> LibraryNet:
    """Return ``timm:NAME`` or ``torchvision:NAME``, freshly initialised from torch's global random generator.

    ``params``: further arguments of its constructor.
    """
    library, _, model = name.partition(":")
    params = params or {}
    if library == "timm":
        create_model = importlib.import_module("timm").create_model
        net = create_model(model, num_classes=num_classes, in_chans=in_channels, **params)
        size = params.get("img_size", net.pretrained_cfg["input_size"][1:])
    else:
        get_model = importlib.import_module("torchvision.models").get_model
        net = get_model(model, weights=None, num_classes=num_classes, **params)
        size = params.get("image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    return LibraryNet(net, (in_channels, height, width))


@dataclass
class TapProbe:
    """The results of a network's modules for an image (C, H, H)."""

    heights: dict[str, int] = field(default_factory=dict)  # of the square maps they return, in the order they are done
    relus: dict[str, str] = field(default_factory=dict)  # of those that return a ReLU's result: that module
    classifier: str = ""  # the last linear (or, for heads that classify positions, convolution) layer


def probe_taps(net: nn.Module, image_shape: tuple[int, int, int]) -> TapProbe:
    """Run the network once, on shapes only; modules are named by their paths."""
    twin = copy.deepcopy(net).to("meta").eval()
    probe = TapProbe()
    results: dict[str, Tensor] = {}  # of the ReLUs' last calls

    def hook(path: str) -> Any:
        def note(module: nn.Module, _inputs: Any, output: Any) -> None:
            for table in (probe.heights, probe.relus):
                table.pop(path, None)
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3]:
                probe.heights[path] = output.shape[2]
                if isinstance(module, nn.ReLU | nn.ReLU6):
                    results[path] = output
                    # It has been called again, by what comes after: its last input is no longer theirs.
                    probe.relus = {k: relu for k, relu in probe.relus.items() if relu != path}
                if relus := [relu for relu, result in results.items() if result is output]:
                    probe.relus[path] = relus[-1]
            if isinstance(module, nn.Linear | nn.Conv2d):
                probe.classifier = path

        return note

    for path, module in twin.named_modules():
        if path:
            module.register_forward_hook(hook(path))
    with torch.no_grad():
        twin(torch.zeros(1, *image_shape, device="meta"))
    return probe


def named_stages(net: nn.Module, heights: dict[str, int], image_height: int) -> dict[str, str]:
    """Return the paths of the modules for ``stem`` (if the network has one), ``stage1``, ..."""
    info: Any = getattr(net, "feature_info", None)
    if info:
        paths = [entry["module"] for entry in info if entry["module"] in heights]
    else:
        of_size: dict[int, str] = {}
        for path, height in heights.items():
            if height > 1 and path.count(".") <= of_size.get(height, "features.0").count("."):
                of_size[height] = path
        paths = list(of_size.values()) if len(of_size) > 2 else []
    stem = {"stem": paths.pop(0)} if paths and heights[paths[0]] > image_height / 3 else {}
    return stem | {f"stage{i}": path for i, path in enumerate(paths, start=1)}

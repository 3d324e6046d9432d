"""Models of timm and torchvision, unchanged, with their feature maps readable by name."""

import importlib
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from harness.errors import UserError, one_line, shorten
from harness.models.older_names import Translation, translation_for
from harness.models.stage_names import named_stages, token_taps
from harness.models.tap_probe import probe_taps
from harness.models.taps import ConvNet, Taps
from harness.spec.model_reference import ModelReference


class LibraryNet(ConvNet):
    """A model of another library around which nothing but taps is added; its state dict is the library's own.

    Taps are the maps (B, C, H, W) in what its modules return: maps, also with the channels last, and tokens (B, N, C)
    without those that are no patches. What attention multiplies is none.

    ``module.PATH``  of the module of that path, e.g. ``module.layer2.0.conv1``; of its last call, if it has several;
    ``stem``, ``stage1``, ``stage2``, ...  where timm's ``feature_info`` has them; in torchvision the last of the
                     outer modules of each size, if there are three sizes or more. The first is the stem if it is
                     higher than a third of the image. Blocks of one size, as a ViT's, are put into four stages, see
                     ``stage_names.stage_ends``; a network of tokens has its patches before the first block as stem.

    ``stage1.preact``, ...  what the ReLU that ends the stage is given, where a module of its own does that;
    ``tokens``, ``cls``  of a network of tokens: all patches after the last norm, and the class token, of size 1x1.

    The embedding is what the last linear layer is given (after dropout, where the library puts one there), averaged
    over positions if that is a map; with the two heads of DeiT or LeViT, the mean of what the two are given.
    """

    foldable = False  # its modules are taps: what they return must stay what it was

    def __init__(self, net: nn.Module, image_shape: tuple[int, int, int]):
        super().__init__()
        probe = probe_taps(net, image_shape)
        stages = named_stages(net, probe, image_shape[1])
        other = re.sub(r"\bhead_dist\b", "head", probe.classifier)  # `head.linear` and `head_dist.linear` in LeViT
        both = other != probe.classifier and other in probe.linear
        self._classifiers = [other, probe.classifier] if both else [probe.classifier]
        self._relus = {f"{name}.preact": probe.relus[path] for name, path in stages.items() if path in probe.relus}
        of_tokens = token_taps(net, probe, stages)
        self._places = {name: (path, probe.layouts[path]) for name, path in stages.items()} | of_tokens
        self._places |= {f"module.{path}": (path, layout) for path, layout in probe.layouts.items()}
        of_stages = [tap for name in stages for tap in (f"{name}.preact", name) if tap in self._relus or tap == name]
        self.tap_names = (*of_stages, *(tap for tap in self._places if tap not in stages))
        self.net = net

    @property
    def translation(self) -> Translation | None:
        """The library's translation of names in older checkpoints, if it has one for this model."""
        return translation_for(self.net)

    def run(self, images: Tensor, taps: Taps) -> tuple[Tensor, Tensor]:
        collected: dict[str, Tensor] = {}
        image_size = (images.shape[2], images.shape[3])

        def hook(tap: str) -> Any:
            # a copy: what comes after the module may change its map in place
            if tap in self._relus:
                relu = self.net.get_submodule(self._relus[tap])
                return relu.register_forward_pre_hook(
                    lambda _module, inputs: collected.update({tap: inputs[0].clone()})
                )
            return self.net.get_submodule(self._places[tap][0]).register_forward_hook(
                lambda _module, _inputs, output: collected.update({tap: output.clone()})
            )

        def read(classifier: str) -> Any:
            return self.net.get_submodule(classifier).register_forward_pre_hook(
                lambda _module, inputs: read_by_heads.update({classifier: inputs[0]})
            )

        read_by_heads: dict[str, Tensor] = {}
        requested = [tap for tap in self.tap_names if tap in taps.requested]
        hooks = [read(classifier) for classifier in self._classifiers] + [hook(tap) for tap in requested]
        try:
            logits = self.net(images)
        finally:
            for each in hooks:
                each.remove()
        for tap in requested:
            # Only now: an earlier call of the module may return what has no such layout.
            x = collected[tap]
            taps(tap, x if tap in self._relus else self._places[tap][1].read(x, image_size))
        if not isinstance(logits, Tensor):  # inception_v3 and googlenet in training: the auxiliary heads' too
            logits = logits[0]
        first, *others = (read_by_heads[classifier] for classifier in self._classifiers)
        embedding = (first + others[0]) / 2 if others else first
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

    Raises:
        UserError: the library cannot build it with these arguments.
    """
    params = dict(params or {})
    try:
        net, size = _built(name, num_classes, in_channels, params)
    except Exception as e:
        if not params:
            raise
        text = ModelReference(name, params).text
        raise UserError(
            f"{shorten(text)}: not built with these arguments: {type(e).__name__}: {one_line(str(e), 200)}"
        ) from e
    height, width = (size, size) if isinstance(size, int) else size
    return LibraryNet(net, (in_channels, height, width))


def _built(name: str, num_classes: int, in_channels: int, params: dict[str, Any]) -> tuple[nn.Module, Any]:
    """Return a library's model, and the size of the images that it is made for."""
    library, _, model = name.partition(":")
    if library == "timm":
        create_model = importlib.import_module("timm").create_model
        net = create_model(model, num_classes=num_classes, in_chans=in_channels, **params)
        return net, params.get("img_size", net.pretrained_cfg["input_size"][1:])
    get_model = importlib.import_module("torchvision.models").get_model
    net = get_model(model, weights=None, num_classes=num_classes, **params)
    return net, params.get("image_size", 224)

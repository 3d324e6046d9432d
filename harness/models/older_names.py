"""Names of tensors in checkpoints of a library's older versions, or of a model's authors, translated by the library."""

import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")  # of timm's modules of models
_TORCHVISIONS = {  # names of older versions, and today's, by the module of a model
    "densenet": [(re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2")],
    "vision_transformer": [
        (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
        (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
    ],
}


class Translation(NamedTuple):
    """A library's translation of names for one of its models."""

    library: str
    function: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]

    def __call__(self, state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Return the tensors of a state dict by the names of a model with these shapes.

        They are as they were where the library fails on them. Tensors of another size than the model's are left as they
        are: the library would interpolate them.
        """
        others = {key: x for key, x in state.items() if x.numel() != math.prod(shapes.get(key, x.shape))}
        blanks = {key: torch.zeros((), device=x.device).expand(shapes[key]) for key, x in others.items()}
        try:
            with torch.no_grad():
                translated = dict(self.function({**state, **blanks}))
        except Exception:  # whatever a library's function says about names that it does not expect
            return dict(state)
        tensors = {key: x for key, x in translated.items() if isinstance(key, str) and isinstance(x, Tensor)}
        return {key: others.get(key, x) for key, x in tensors.items()}


def translation_for(net: nn.Module) -> Translation | None:
    """Return the translation that timm or torchvision has for a model of theirs."""
    package, _, rest = type(net).__module__.partition(".")
    if package == "torchvision" and (renamings := _TORCHVISIONS.get(rest.removeprefix("models."))):
        return Translation("torchvision", partial(_rename, renamings))
    if package != "timm":
        return None
    module = _module_of_entry_point(net)
    function: Any = next((getattr(module, name) for name in _FILTERS if hasattr(module, name)), None)
    if function is None:
        return None
    parameters = inspect.signature(function).parameters
    # The names of DeiT III's authors: only timm's own call of this function asks for them.
    further = {"adapt_layer_scale": True} if "adapt_layer_scale" in parameters else {}
    arguments = (net,) if "model" in parameters else ()
    return Translation("timm", lambda state: function(state, *arguments, **further))


def _module_of_entry_point(net: nn.Module) -> Any:
    from timm.models import is_model, model_entrypoint

    architecture = (getattr(net, "pretrained_cfg", None) or {}).get("architecture", "")
    name = model_entrypoint(architecture).__module__ if is_model(architecture) else type(net).__module__
    return sys.modules[name]


def _rename(renamings: list[tuple[re.Pattern[str], str]], state: dict[str, Tensor]) -> dict[str, Tensor]:
    for older, newer in renamings:
        state = {older.sub(newer, key): tensor for key, tensor in state.items()}
    return state

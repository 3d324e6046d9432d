"""Models of the user's own, built: a plain module gets taps as a library's model does, and keeps its state dict."""

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import UserError, shorten
from harness.models.library_models import LibraryNet
from harness.models.taps import ConvNet
from harness.spec.model_reference import ModelReference
from harness.spec.own_models import code_of
from harness.spec.source_code import OwnCode
from methods.base import Outputs

_CHECKED: set[tuple[object, ...]] = set()  # what this process has looked at


def own_net(reference: ModelReference, num_classes: int, image_shape: tuple[int, int, int]) -> ConvNet:
    """Import and build ``package.module:Name``, a class or function that the user has named.

    Raises whatever its code raises.

    Raises:
        UserError: the result is no module, or does not return logits (B, classes) for images (B, C, H, W).
    """
    own = code_of(reference.name)
    make = own.load()
    params = {"num_classes": num_classes, **reference.params}
    signature = inspect.signature(make)
    taken = signature.parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    if "in_channels" in taken or (takes_any and image_shape[0] != 3):
        params["in_channels"] = image_shape[0]
    try:
        signature.bind(**params)
    except TypeError as e:
        raise UserError(f"{own}: {e}") from None
    net = make(**params)
    if not isinstance(net, nn.Module):
        raise UserError(f"{own}: expected a torch.nn.Module, its result is {shorten(net)}")
    asked = (own.name, id(make), repr(params), image_shape)
    if asked not in _CHECKED:
        _check_logits(own, net, num_classes, image_shape)
        _CHECKED.add(asked)
    return net if isinstance(net, ConvNet) else LibraryNet(net, image_shape)


def _check_logits(own: OwnCode, net: nn.Module, num_classes: int, image_shape: tuple[int, int, int]) -> None:
    """Run a copy of the network once, on shapes only, and look at what it returns."""
    try:
        result = _run_copy(net, image_shape, "meta")
    except Exception as e:
        _run_copy(net, image_shape, "cpu")  # raises what is wrong with it, if it is not the lack of values
        raise UserError(
            f"{own}: taps are found by a forward pass without values, on torch's device `meta`, which fails: "
            f"{type(e).__name__}: {e}{own.place_of(e)}; read no tensor's value in Python, and keep tensors in buffers"
        ) from e
    if isinstance(result, Outputs) and isinstance(net, ConvNet):
        result = result.logits
    if not isinstance(result, Tensor):
        raise UserError(f"{own}: forward must return the logits as one tensor, found {_kind(result)}")
    if result.shape != (2, num_classes):
        shape = "x".join(map(str, result.shape))
        raise UserError(f"{own}: forward must return logits of shape 2x{num_classes} for 2 images, found {shape}")


def _run_copy(net: nn.Module, image_shape: tuple[int, int, int], device: str) -> Any:
    with torch.no_grad():
        return copy.deepcopy(net).to(device).eval()(torch.zeros(2, *image_shape, device=device))


def _kind(result: Any) -> str:
    size = f" of {len(result)}" if isinstance(result, tuple | list | dict) else ""
    return f"a {type(result).__name__}{size}"

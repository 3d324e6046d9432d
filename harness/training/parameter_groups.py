"""Parameter groups: which parameters have a learning rate or a weight decay of their own."""

import importlib
import re
from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any

from torch import nn

from harness.errors import UserError
from harness.spec.models import CATALOG
from harness.spec.schema import Recipe
from harness.spec.tasks import resolve_model
from harness.training.engines.base import Groups, ParameterGroup, Parameters, one_group

_STAGE = re.compile(r"((layer|block)\d+|blocks\.\d+)\.")  # of the harness's own classifiers


def parameter_groups(student: nn.Module, model: str, recipe: Recipe, parameters: Parameters) -> Groups:
    """Return the groups of the parameters in training, of which the student's come first.

    Those that are not the student's have the whole learning rate, like the student's last layer.

    Raises:
        UserError: the order of the student's layers is not known.
    """
    if recipe.decay_norms_and_biases and recipe.layer_decay in (None, 1.0):
        return one_group(parameters, recipe)
    names = {parameter: name for name, parameter in student.named_parameters()}
    layers = layer_ids(student, model) if recipe.layer_decay is not None else {}
    undecayed = () if recipe.decay_norms_and_biases else undecayed_names(student)
    indices: dict[tuple[float, float], list[int]] = {}
    for i, p in enumerate(parameters):
        name = names.get(p, "")
        below = max(layers.values()) - layers[name] if name in layers else 0
        scale = 1.0 if recipe.layer_decay is None else recipe.layer_decay**below
        plain = not recipe.decay_norms_and_biases and (p.dim() <= 1 or name.endswith(".bias"))
        plain = plain or any(fnmatch(name, pattern) for pattern in undecayed)
        indices.setdefault((scale, 0.0 if plain else recipe.weight_decay), []).append(i)
    return tuple(ParameterGroup(tuple(of), scale, decay) for (scale, decay), of in indices.items())


def undecayed_names(student: nn.Module) -> tuple[str, ...]:
    """Return patterns of the parameters that a model names in ``no_weight_decay()``, as timm's do: ``pos_embed``."""
    prefix, names = _first_answer(student, "no_weight_decay")
    return tuple(f"{prefix}{name}" for name in sorted(names() if names else ()))


def layer_ids(student: nn.Module, model: str) -> dict[str, int]:
    """Return the position of each parameter's layer, from input to output.

    A layer is what the model's ``group_matcher`` says, as timm's have it (a block of a transformer, BEiT's way,
    arXiv:2106.08254); in the harness's own classifiers a stage. The stem is the first, the head the last.

    Raises:
        UserError: the model does not say.
    """
    prefix, matcher = _first_answer(student, "group_matcher")
    if matcher:
        group_parameters = importlib.import_module("timm.models").group_parameters
        net = student.get_submodule(prefix.removesuffix("."))
        ids: dict[str, int] = group_parameters(net, matcher(coarse=False), reverse=True)
        return {f"{prefix}{name}": i for name, i in ids.items()}
    if resolve_model(model) not in CATALOG:
        raise UserError(
            f"recipe.layer_decay: {model} does not say which of its layers follow each other; the harness's own "
            "classifiers do, and models with a method group_matcher, such as timm's"
        )
    return _stage_ids(student)


def _stage_ids(student: nn.Module) -> dict[str, int]:
    """Count a classifier's stages. What lies between the last one and the head counts as the last one's."""
    head = [name for name, _ in student.named_children()][-1]
    ids: dict[str, int] = {}
    layer, positions = "stem", dict[str, int]()
    for name, _ in student.named_parameters():
        if match := _STAGE.match(name):
            layer = match[1]
        elif name.startswith(f"{head}."):
            layer = head
        ids[name] = positions.setdefault(layer, len(positions))
    return ids


def _first_answer(student: nn.Module, method: str) -> tuple[str, Callable[..., Any] | None]:
    """Return the outermost module's method of this name, with the beginning of its parameters' names."""
    for name, module in student.named_modules():
        if answer := getattr(module, method, None):
            return f"{name}." if name else "", answer
    return "", None

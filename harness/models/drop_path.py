"""Stochastic depth: a student whose residual branches are left out at random in training (arXiv:1603.09382)."""

from collections.abc import Callable

from torch import nn

from harness.errors import UserError
from harness.spec.model_reference import ModelReference

# What constructors call the probability; users' own models name it as timm's do.
ARGUMENTS = {"timm": "drop_path_rate", "torchvision": "stochastic_depth_prob"}


def build_with_drop_path(build: Callable[[str], nn.Module], model: str, drop_path: float) -> nn.Module:
    """Build a student whose residual branches are left out with this probability, the last ones' as the model has it.

    Raises:
        UserError: the model has no such argument, or it is stated a second time.
    """
    if not drop_path:
        return build(model)
    reference = ModelReference.parse(model)
    library, is_foreign, _ = reference.name.partition(":")
    if not is_foreign:
        raise UserError(f"recipe.drop_path: {model} has no residual branches that can be left out; models of timm have")
    argument = ARGUMENTS.get(library, ARGUMENTS["timm"])
    if argument in reference.params:
        raise UserError(f"recipe.drop_path: {model} states {argument} too; state one of them")
    try:
        return build(ModelReference(reference.name, {**reference.params, argument: drop_path}).text)
    except (TypeError, ValueError, UserError) as e:
        if argument not in str(e):
            raise
        raise UserError(f"recipe.drop_path: {model} takes none: {e}") from None

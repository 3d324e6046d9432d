"""Frozen parts of a student: they stay as they start, their batch norms' statistics too."""

from collections.abc import Iterable

from torch import nn

from harness.errors import UserError, unknown
from harness.models.taps import ConvNet


def freeze_parts(student: nn.Module, name: str, parts: tuple[str, ...]) -> None:
    """Exclude parts of a student from training; ``set_frozen_to_eval`` then keeps their buffers.

    Args:
        parts: beginnings, at dots, of the names that the parameters have in the student's state dict.

    Raises:
        UserError: a part that the student has not, or nothing is left to train.
    """
    state = student.state_dict(keep_vars=True)
    parameters = {key: tensor for key, tensor in state.items() if isinstance(tensor, nn.Parameter)}
    for part in parts:
        frozen = [key for key in parameters if key == part or key.startswith(f"{part}.")]
        if not frozen:
            raise UserError(f"recipe.freeze: {unknown(f'part of {name}', part, _parts(parameters, part.count('.')))}")
        for key in frozen:
            parameters[key].requires_grad_(False)
    if parts and not any(parameter.requires_grad for parameter in student.parameters()):
        raise UserError(f"recipe.freeze: nothing of {name} is left to train: expected fewer parts")


def set_frozen_to_eval(student: nn.Module) -> None:
    """Set the modules of a student that have parameters, all of them frozen, to eval mode, with all inside them."""
    for module in student.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def remove_head_bias(student: nn.Module) -> None:
    """Set the bias of a described student's last layer to 0 and exclude it from training.

    Raises:
        ValueError: the student has no linear layer that reads a map's mean.
    """
    place = student.head_place if isinstance(student, ConvNet) else None
    if place is None:
        raise ValueError("the student has no bias to leave out: its logits are not linear in a map's mean")
    bias = student.get_submodule(place.layer).bias
    assert isinstance(bias, nn.Parameter)
    nn.init.zeros_(bias)
    bias.requires_grad_(False)


def _parts(names: Iterable[str], dots: int) -> set[str]:
    """Return the beginnings of names that have at most so many dots."""
    return {".".join(name.split(".")[: i + 1]) for name in names for i in range(dots + 1)}

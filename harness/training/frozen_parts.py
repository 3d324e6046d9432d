"""Frozen parts of a student: they stay as they start, their batch norms' statistics too."""

from collections.abc import Iterable

from torch import nn

from harness.errors import UserError, unknown


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


def _parts(names: Iterable[str], dots: int) -> set[str]:
    """Return the beginnings of names that have at most so many dots."""
    return {".".join(name.split(".")[: i + 1]) for name in names for i in range(dots + 1)}

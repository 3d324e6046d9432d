"""Weights that a classifier starts from. Its last layer may be for another number of classes."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from harness.models.checkpoints import load_state_dict, read_weights
from harness.models.state_dicts import Wanted
from harness.phrases import some
from harness.spec.pretrained import ANYWHERE, Place


def load_initial_weights(
    model: nn.Module, other: nn.Module, name: str, file: Path, sha256: str | None = None, place: Place = ANYWHERE
) -> str:
    """Load the weights that a model starts from; return a line on what was taken.

    The last layer is taken where its shape agrees, and otherwise stays as it is. All else must agree.

    Args:
        other: the same model for another number of classes. The last layer (of a distilled DeiT, both) is what differs.

    Raises:
        WeightsError: the file cannot be read, has another content, or is another model's.
    """
    whole = Wanted.of(model)
    parts, classes = _last_layers(whole, Wanted.of(other))
    layers = some([part.removesuffix(".") for part in parts])
    state, loaded = read_weights(file, whole, name, sha256, place)
    if _agrees(state, whole):
        load_state_dict(model, name, loaded, state)
        head = f"its last layer ({layers}) too" if layers else "the whole model"
    else:
        stated = _classes(state, parts)
        body = Wanted(
            {key: shape for key, shape in whole.shapes.items() if not key.startswith(parts)}, parts, whole.translation
        )
        own = {key: tensor for key, tensor in model.state_dict().items() if key.startswith(parts)}
        state, loaded = read_weights(file, body, name, sha256, place)
        load_state_dict(model, name, loaded, {**own, **state})
        head = f"not its last layer ({layers}), which starts from random numbers for {classes} classes: {stated}"
    return f"{name} starts from weights {file}: {head}" + (f"; {loaded.part}" if loaded.part else "")


def _last_layers(model: Wanted, other: Wanted) -> tuple[tuple[str, ...], int]:
    """Return how the names of the tensors begin whose shapes depend on the number of classes, and that number."""
    differing = [key for key, shape in model.shapes.items() if other.shapes.get(key) != shape]
    classes = model.shapes[differing[-1]][0] if differing else 0
    return tuple(dict.fromkeys("".join(key.rpartition(".")[:2]) or key for key in differing)), classes


def _agrees(state: Mapping[str, Tensor], wanted: Wanted) -> bool:
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    needed = {key: shape for key, shape in wanted.shapes.items() if not key.endswith("num_batches_tracked")}
    return needed.items() <= shapes.items()


def _classes(state: Mapping[str, Tensor], parts: tuple[str, ...]) -> str:
    """Return a file's number of classes in words."""
    sizes = {len(tensor) for key, tensor in state.items() if key.startswith(parts) and tensor.ndim}
    return f"the file's is for {some([str(size) for size in sorted(sizes)])}" if sizes else "the file has none"

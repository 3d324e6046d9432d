"""Weights' files, read without executing anything."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.errors import one_line
from harness.models.checkpoint_file import Checkpoint, WrongFile, open_checkpoint
from harness.models.state_dicts import Candidate, Shape, Wanted, choose
from harness.models.stored_tensors import FileTensor
from harness.phrases import some
from harness.spec.pretrained import ANYWHERE, Place
from harness.store import files

_MOST_SHARING = 16  # times the file's size that its tensors may take together
_SIMKD = (
    "is the whole model of a run whose method is part of it, such as simkd: its student alone was not trained to "
    "classify. `evaluate --run` measures that model; as a teacher, or as what a student starts from, it cannot be used"
)


class WeightsError(Exception):
    """Weights that cannot be used; the text says which file and why."""


class LoadedWeights(NamedTuple):
    """Weights that were read from a file."""

    file: Path
    sha256: str
    part: str  # which of the file's tensors they are; empty where it holds no others

    @property
    def note(self) -> str:
        """A line on which of the file's tensors were taken, if it holds others."""
        return f"weights {self.file}: {self.part}" if self.part else ""


def load_weights(
    model: nn.Module, name: str, file: Path, sha256: str | None = None, place: Place = ANYWHERE
) -> LoadedWeights:
    """Load all of a model's weights from a file, see ``read_weights``.

    Raises:
        WeightsError: as its text says.
    """
    state, loaded = read_weights(file, Wanted.of(model), name, sha256, place)
    load_state_dict(model, name, loaded, state)
    return loaded


def load_state_dict(model: nn.Module, name: str, loaded: LoadedWeights, state: Mapping[str, Tensor]) -> None:
    """Load a state dict strictly. Only batch norms' counters of batches may be missing.

    Raises:
        WeightsError: what the file holds is not for this model, or not finite.
    """
    file, part = loaded.file, f" ({loaded.part})" if loaded.part else ""
    own = model.state_dict()
    shapes, own_shapes = _shapes(state), _shapes(own)
    for key, tensor in state.items():
        if key in own and own[key].is_floating_point() and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise WeightsError(f"weights {file}: {_shown(key)} holds {kind} numbers; expected floating-point weights")
    if any(own_shapes.get(key, shape) != shape for key, shape in shapes.items()):
        raise WeightsError(f"weights {file}: {difference(name, shapes, own_shapes)}{part}")
    try:
        missing, further = model.load_state_dict(dict(state), strict=False)
    except RuntimeError as e:
        raise WeightsError(f"weights {file}: not the weights of {name}: {first_line(e, 1)}{part}") from None
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or further:
        raise WeightsError(f"weights {file}: {difference(name, shapes, own_shapes, missing, further)}{part}")
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not _is_finite(tensor):
            kind = "NaN" if bool(tensor.isnan().any()) else "infinite numbers"
            raise WeightsError(f"weights {file}: {_shown(key)} holds {kind}: training has diverged, or it is damaged")


def read_weights(
    file: Path, wanted: Wanted, name: str, sha256: str | None = None, place: Place = ANYWHERE
) -> tuple[dict[str, Tensor], LoadedWeights]:
    """Return the state dict of a file that fits a model best, with the model's names.

    Reads safetensors and whatever torch.save writes: a state dict, at any place of a training program's checkpoint and
    with any prefix before its names. ``place``: where it is, if that is stated.

    Raises:
        WeightsError: as its text says.
    """
    try:
        digest = files.sha256(file)
        if sha256 not in (None, digest):
            raise WeightsError(f"weights {file}: sha256 is {digest}, expected {sha256}")
        checkpoint = open_checkpoint(file)
        chosen, part = choose(checkpoint.tree, wanted, place, name)
        if place.prefix is None and chosen.prefix == "student." and _are_methods(chosen.outside):
            raise WrongFile(_SIMKD)
        state = _read(checkpoint, chosen, wanted, name, part)
    except OSError as e:
        raise WeightsError(f"weights {file}: {e.strerror}") from None
    except WrongFile as e:
        raise WeightsError(f"weights {file}: {e}") from None
    return state, LoadedWeights(file, digest, part)


def hold_a_method(file: Path) -> bool:
    """Return whether the weights of a run are those of its student together with its method.

    Raises:
        WeightsError: the file cannot be read.
    """
    try:
        tree = open_checkpoint(file).tree
    except OSError as e:
        raise WeightsError(f"weights {file}: {e.strerror}") from None
    except WrongFile as e:
        raise WeightsError(f"weights {file}: {e}") from None
    return isinstance(tree, Mapping) and all(str(name).startswith(("student.", "method.")) for name in tree)


def _read(checkpoint: Checkpoint, chosen: Candidate, wanted: Wanted, name: str, part: str) -> dict[str, Tensor]:
    tensors = {key: t for key, t in chosen.tensors.items() if isinstance(t, FileTensor)}
    if not chosen.matching and not chosen.translated_by:
        shapes = {key: t.shape for key, t in tensors.items()}
        raise WrongFile(difference(name, shapes, wanted.shapes) + (f" ({part})" if part else ""))
    for key in wanted.shapes:
        if key in chosen.tensors and key not in tensors:
            raise WrongFile(f"{_shown(key)} is no plain tensor ({one_line(chosen.tensors[key].name, 100)})")
    if sum(t.nbytes for t in tensors.values()) > _MOST_SHARING * checkpoint.path.stat().st_size:
        raise WrongFile("is damaged: its tensors are larger than the file")
    with checkpoint.path.open("rb") as file:
        state = {key: checkpoint.read(file, t) for key, t in tensors.items()}
    return wanted.translate(state) if chosen.translated_by else state


def difference(
    name: str, state: Mapping[str, Shape], own: Mapping[str, Shape], missing: list[str] | None = None,
    further: list[str] | None = None,
) -> str:  # fmt: skip
    """Return how the shapes in a file's state dict differ from a model's own: by their names, or in themselves."""
    common = {k: (shape, own[k]) for k, shape in state.items() if k in own}
    shapes = {k: (theirs, ours) for k, (theirs, ours) in common.items() if theirs != ours}
    if missing is None or further is None:
        missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
        further = [k for k in state if k not in own]
    ends = {(theirs[:1], ours[:1]) for theirs, ours in shapes.values() if theirs[1:] == ours[1:]}
    if len(ends) == 1 and len(shapes) <= 2 and not missing and not further:
        ((theirs, ours),) = ends
        layer = next(iter(shapes)).rpartition(".")[0]
        if layer == list(own)[-1].rpartition(".")[0]:
            return f"the file's last layer ({_shown(layer)}) has {theirs[0]} classes, the model {name} {ours[0]}"
    parts = [f"{len(common) - len(shapes)} of its {len(own)} tensors match"]
    if shapes:
        key, (theirs, ours) = next(iter(shapes.items()))
        more = f" (and {len(shapes) - 1} more differ in shape)" if len(shapes) > 1 else ""
        parts.append(f"{_shown(key)} is {theirs} in the file, {ours} in the model{more}")
    if further:
        parts.append(f"only the file has {_some(further)}")
    if missing:
        parts.append(f"only the model has {_some(missing)}")
    return f"not the weights of {name}: " + "; ".join(parts)


def _is_finite(tensor: Tensor) -> bool:
    # A sum is several times as fast, and finite only if all values are.
    return math.isfinite(float(tensor.sum())) or bool(torch.isfinite(tensor).all())


def _shapes(state: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _are_methods(names: tuple[str, ...]) -> bool:
    return bool(names) and all(name.startswith("method.") for name in names)


def _some(names: list[str]) -> str:
    return some([_shown(name) for name in names])


def _shown(name: str) -> str:
    return one_line(name[:200], 80)


def first_line(error: Exception, index: int = 0) -> str:
    """Return the first line of an error's message, or the one at ``index``."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[min(index, len(lines) - 1)][:200]

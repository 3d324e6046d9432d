"""Weights' files, read without executing anything."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from harness.store import files


class WeightsError(Exception):
    """Weights that cannot be used; the text says which file and why."""


def load_weights(model: nn.Module, name: str, file: Path, sha256: str | None = None) -> str:
    """Load a state dict strictly, see ``read_weights``; return the file's sha256.

    Raises:
        WeightsError: as its text says.
    """
    state, digest = read_weights(file, sha256)
    load_state_dict(model, name, file, state)
    return digest


def load_state_dict(model: nn.Module, name: str, file: Path, state: dict[str, Tensor]) -> None:
    """Load a state dict strictly.

    Raises:
        WeightsError: what ``file`` holds is not for this model.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as e:
        raise WeightsError(f"weights {file}: not the weights of {name}: {first_line(e, 1)}") from None


def read_weights(file: Path, sha256: str | None = None) -> tuple[dict[str, Tensor], str]:
    """Return a file's state dict and sha256.

    Reads safetensors, and torch checkpoints with ``weights_only=True``: a bare state dict, or one below ``model``
    or ``state_dict`` as RepDistiller and mdistiller write it.

    Raises:
        WeightsError: as its text says.
    """
    try:
        digest = files.sha256(file)
    except OSError as e:
        raise WeightsError(f"weights {file}: {e.strerror}") from None
    if sha256 not in (None, digest):
        raise WeightsError(f"weights {file}: sha256 is {digest}, expected {sha256}")
    state: Any
    try:
        if file.suffix == ".safetensors":
            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as e:  # torch's reader meets damaged files with any exception there is; nothing else runs here
        raise WeightsError(f"weights {file}: not a readable checkpoint of plain tensors ({first_line(e)})") from None
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise WeightsError(f"weights {file}: expected a state dict of tensors")
    return state, digest


def first_line(error: Exception, index: int = 0) -> str:
    """Return the first line of an error's message, or the one at ``index``."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[min(index, len(lines) - 1)][:200]

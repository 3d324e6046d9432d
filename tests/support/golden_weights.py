"""The golden folder, and the weights behind its numbers: a pure function of state_dict keys and shapes."""

import math
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

SHARED = Path(__file__).resolve().parents[3] / "shared" / "golden"
GOLDEN = Path(os.environ.get("KD_GOLDEN") or SHARED)


def value(key: str, shape: tuple[int, ...]) -> Tensor:
    """Return the formula's float32 tensor for a state_dict key (int64 for a 0-d counter)."""
    if not shape:
        return torch.tensor(0)
    kind = key.rpartition(".")[2]
    if len(shape) >= 2:
        draws = np.random.default_rng(zlib.crc32(key.encode())).normal(size=shape)
        values = draws * math.sqrt(1 / math.prod(shape[1:]))
    elif kind == "weight":
        values = 1 + 0.1 * np.cos(np.arange(shape[0]))
    elif kind == "bias":
        values = 0.1 * np.cos(np.arange(shape[0]))
    elif kind == "running_mean":
        values = 0.1 * np.sin(np.arange(shape[0]))
    elif kind == "running_var":
        values = np.ones(shape)
    elif kind == "log_scale":
        values = np.full(shape, math.log(math.exp(5 - 1e-5) - 1))
    else:
        raise ValueError(f"the golden formula has no case for {key!r} of shape {shape}")
    return torch.from_numpy(values.astype(np.float32))


def fill(module: nn.Module, prefix: str = "") -> None:
    """Load the formula's weights into `module`; `prefix` is put before each state_dict key."""
    module.load_state_dict({key: value(prefix + key, tuple(v.shape)) for key, v in module.state_dict().items()})

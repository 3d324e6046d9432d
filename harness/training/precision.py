"""The arithmetic that a recipe's ``precision`` stands for."""

from contextlib import AbstractContextManager

import torch


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Return a context for models' forward passes: for bf16 torch's autocast, else one that changes nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def set_float32(precision: str) -> None:
    """Let this process's GPU multiply float32 matrices and convolutions in TF32 only for precision tf32.

    torch's own default is TF32 for convolutions, which float32 in a recipe does not mean.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"

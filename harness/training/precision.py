"""What a recipe's ``precision`` means."""

from contextlib import AbstractContextManager

import torch


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """bf16: the models' forward in bfloat16 where autocast holds it safe; otherwise nothing is changed."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def set_float32(precision: str) -> None:
    """How this process's GPU multiplies float32 matrices and convolutions: exactly, but for precision tf32. torch's own
    default is tf32 for convolutions, which a recipe that says float32 does not mean."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"

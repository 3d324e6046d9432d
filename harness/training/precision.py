"""What a recipe's ``precision`` means."""

from contextlib import AbstractContextManager

import torch


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """bf16: the models' forward in bfloat16 where autocast holds it safe; float32: nothing is changed."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")

"""Small file systems, and a method that fills one."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PAIRS = [{"teacher": "digits_net_w8", "student": "digits_net_w16"}]
WEIGHTS = 76 << 10  # bytes of this student's file: many more than the notes beside it take


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small tmpfs (it needs root): {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


FILLS = '''
import os
from typing import ClassVar
from torch import Tensor
from methods.base import Batch, Distiller, Outputs, TapSpec

class Fills(Distiller):
    """Fill the disk of the results folder, except `left` bytes, at the second step while a file `fill` exists."""
    needs_teacher: ClassVar[bool] = False
    weights: ClassVar[dict[str, float]] = {"ce": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec, *, left: int = 0):
        super().__init__(student, teacher)
        self.left, self.steps = left, 0

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        self.steps += 1
        if self.steps == 2 and os.path.exists("fill"):
            disk = os.statvfs("results")
            with open("results/filler", "wb") as f:
                f.write(b"x" * max(0, disk.f_bavail * disk.f_frsize - self.left))
        return {}
'''

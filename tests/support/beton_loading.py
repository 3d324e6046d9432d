"""Loaders of .beton files with the settings of the tests."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from harness.data.load.beton import BetonLoader
from harness.data.load.tensors import Normalise
from harness.training.distributed.ranks import Ranks

N, BATCH = 50, 16
CPU = torch.device("cpu")


def raw_pixels(device: torch.device) -> Normalise:
    """Return a normalisation that leaves values in 0..255."""
    return Normalise(SimpleNamespace(mean=(0.0,) * 3, std=(1 / 255,) * 3), device)


PIXELS = raw_pixels(CPU)


def train_loader(path: Path, backend: str | None, **changes: Any) -> BetonLoader:
    options = {
        "positions": np.arange(N), "batch_size": BATCH, "image_size": 96, "crop_area": (0.08, 1.0), "flip": True,
        "seed": 3, "rows": Ranks().rows, "workers": 2, "device": CPU, "backend": backend,
    } | changes  # fmt: skip
    return BetonLoader(path, options.pop("positions"), raw_pixels(options["device"]), **options)


def usage() -> tuple[int, int]:
    """Return the number of this process's threads, and its private memory in kB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["Threads"]), int(status["RssAnon"].split()[0])

"""Checkpoints: safetensors files with a digest of their content and their run. The last two of a run are kept."""

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.store import files

CHECKPOINTS_PER_RUN = 2


def save(folder: Path, epoch: int, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write a checkpoint after ``epoch`` epochs and ``step`` steps of the next.

    ``tensors`` may have any layout; ``state`` must be JSON-able.

    Raises:
        DiskFull: the disk is full; the previous checkpoint is untouched.
    """
    flat = {k: t.detach().contiguous().cpu() for k, t in tensors.items()}
    text = json.dumps(state, sort_keys=True)
    metadata = {"state": text, "digest": _digest(flat, text), "run": _run(folder)}
    newest = folder / f"epoch-{epoch:06d}-step-{step:06d}.safetensors"
    files.replace(newest, lambda path: save_file(flat, path, metadata))
    for old in sorted(folder.glob("epoch-*.safetensors"))[:-CHECKPOINTS_PER_RUN]:
        old.unlink(missing_ok=True)


def load_newest(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the newest intact checkpoint, its tensors and state; skip damaged ones with a line in the log.

    Raises:
        OSError: one cannot be read, which may pass: starting again without it would lose what it holds.
    """
    for path in reversed(files.entries(folder, "epoch-*.safetensors")):
        try:
            with files.errors_named(path):
                return _load(path)
        except OSError as e:
            if files.error_number(e) not in (errno.EIO, errno.ENOENT, errno.EINVAL, None):  # not lost for ever
                raise
            print(f"checkpoint {path} cannot be read ({e.strerror or e}); trying the one before", flush=True)
        except (SafetensorError, ValueError, KeyError, RecursionError) as e:
            print(f"checkpoint {path} is damaged ({e}); trying the one before", flush=True)
    return None


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as f:
        metadata = f.metadata() or {}
        tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 (not a dict)
    if _digest(tensors, metadata["state"]) != metadata["digest"]:
        raise ValueError("its content does not match its digest")
    if metadata.get("run", run := _run(path.parent)) != run:  # an earlier harness did not write it
        raise ValueError("it is another run's")
    return tensors, json.loads(metadata["state"])


def _run(folder: Path) -> str:
    """Return the run whose checkpoints a folder holds."""
    return folder.parent.name


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        t = tensors[name]
        digest.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
        digest.update(t.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

"""Where data and given weights lie: below the data root (``--data``, else KD_DATA), never in a run's identity."""

import hashlib
import os
from pathlib import Path

from harness.errors import UserError, shorten
from harness.spec.datasets import CATALOG
from harness.spec.schema import Weights

ADVICE = "name the folder that holds it with --data DIR or the environment variable KD_DATA"
_FOLDERS = {"cifar100": "cifar-100-python"}


def data_root(option: Path | None) -> Path | None:
    """The folder of ``--data``, else of KD_DATA, else None.

    Raises:
        UserError: it is named but does not exist.
    """
    named = option or (Path(os.environ["KD_DATA"]) if os.environ.get("KD_DATA") else None)
    if named is not None and not named.is_dir():
        raise UserError(f"data root {named}: no such folder; {ADVICE}")
    return named.resolve() if named else None


def dataset_folder(name: str, root: Path | None) -> Path | None:
    """The folder of a dataset in its official layout; None for one that comes with a package.

    Raises:
        UserError: it is not there.
    """
    if CATALOG[name].embedded:
        return None
    if root is None:
        raise UserError(f"dataset {name!r} needs data: {ADVICE}")
    folder = root / _FOLDERS[name]
    if not folder.is_dir():
        raise UserError(f"dataset {name!r}: no folder {folder}; {ADVICE}")
    return folder


def weights_file(weights: Weights, root: Path | None, sweep_folder: Path) -> Path | None:
    """The file of given weights, or None when it is in none of its places."""
    try:
        named = Path(weights.file).expanduser()
    except RuntimeError as e:
        raise UserError(f"weights {shorten(weights.file)}: {e}") from None
    places = [named] if named.is_absolute() else [*([root / named] if root else []), sweep_folder / named]
    try:
        return next((p.resolve() for p in places if p.is_file()), None)
    except OSError as e:  # a name too long, a folder that may not be entered
        raise UserError(f"weights {shorten(weights.file)}: {e.strerror}") from None


def checked_sha256(weights: Weights, file: Path | None) -> str:
    """The sha256 of given weights: of the file, which must agree with the one stated; else the stated one.

    Raises:
        UserError: they differ, or neither is at hand.
    """
    if file is None:
        if weights.sha256 is None:
            raise UserError(f"weights {weights.file}: no such file; {ADVICE}")
        return weights.sha256
    with file.open("rb") as f:
        found = hashlib.file_digest(f, "sha256").hexdigest()
    if weights.sha256 not in (None, found):
        raise UserError(f"weights {file}: sha256 is {found}, the sweep file states {weights.sha256}")
    return found

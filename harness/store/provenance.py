"""The provenance of a run: commit and package versions."""

import json
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from harness.store import files

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pyarrow", "submitit", "pydantic", "scikit-learn", "deepspeed")
_DECODERS = {"ffcv": ("ffcv",), "pil": ("pillow",), "torchvision": ("torchvision", "pycocotools")}
SNAPSHOT_FILE = "snapshot.json"  # in a copy of the packages that jobs run from: the git_state of the original


@cache
def git_state() -> tuple[str, bool]:
    """Return (commit, dirty) of the checkout that the harness runs or was copied from; ("", False) outside one."""
    folder = Path(__file__).resolve().parents[2]
    if isinstance(state := files.read_json(folder / SNAPSHOT_FILE), list):
        return state[0], state[1]

    def git(*args: str) -> str:
        # Without --git-dir, an installed package would have the commit of a repository around it.
        command = ["git", "-C", str(folder), "--git-dir=.git", *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    try:
        return git("rev-parse", "HEAD").strip(), bool(git("status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.CalledProcessError):
        return "", False


def versions(decoder: str = "") -> str:
    """Return JSON of package -> version: Python, the packages that runs use, and those of an image ``decoder``."""
    version_of = {"python": platform.python_version()}
    for name in (*_PACKAGES, *(_DECODERS[decoder] if decoder else ())):
        if (version := _version(name)) is not None:
            version_of[name] = version
    return json.dumps(version_of, sort_keys=True)


@cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

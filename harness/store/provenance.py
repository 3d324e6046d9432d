"""Where and with what a run was trained."""

import json
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from harness.store import files

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pyarrow", "submitit", "pydantic", "scikit-learn", "deepspeed")
_DECODERS = {"ffcv": ("ffcv",), "pil": ("pillow",), "torchvision": ("torchvision", "pycocotools")}
SNAPSHOT_FILE = "snapshot.json"  # lies beside the packages of a copy that jobs run from, and holds its git_state


@cache
def git_state() -> tuple[str, bool]:
    """(commit, dirty) of the checkout the harness runs from, or was copied from; ("", False) when it is not one."""
    folder = Path(__file__).resolve().parents[2]
    if isinstance(copied := files.read_json(folder / SNAPSHOT_FILE), list):
        return copied[0], copied[1]

    def git(*args: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *args], capture_output=True, text=True, check=True).stdout

    try:
        return git("rev-parse", "HEAD").strip(), bool(git("status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.CalledProcessError):
        return "", False


def versions(decoder: str = "") -> str:
    """JSON of package -> version, Python included, and what a ``decoder`` of images comes with."""
    found = {"python": platform.python_version()}
    for name in (*_PACKAGES, *(_DECODERS[decoder] if decoder else ())):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return json.dumps(found, sort_keys=True)

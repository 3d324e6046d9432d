"""Where and with what a run was trained."""

import json
import platform
import re
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from harness.store import files

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pyarrow", "submitit", "pydantic", "scikit-learn", "deepspeed")
_DECODERS = {"ffcv": ("ffcv",), "pil": ("pillow",), "torchvision": ("torchvision", "pycocotools")}
# What torch.cuda.get_device_name answers begins so; a processor's name does not.
_GPU = re.compile(r"NVIDIA|Tesla|GeForce|Quadro|TITAN|GRID|A100|AMD Instinct|AMD Radeon")


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


def cpu_name() -> str:
    """The processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def gpu_name() -> str | None:
    """The first GPU's name as the NVIDIA driver has it, without loading any GPU library; None where it does not say."""
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        if found := re.search(r"^Model:\s*(.+?)\s*$", file.read_text(errors="replace"), re.MULTILINE):
            return found[1]
    return None


def is_gpu(hardware: str) -> bool:
    """Whether a record's ``hardware`` names a GPU."""
    return _GPU.match(hardware) is not None

"""The machine this process runs on: its cores, processor and GPUs, found without loading any GPU library."""

import os
import platform
import re
from pathlib import Path

# The names that torch.cuda.get_device_name returns start like this; a processor's name does not.
_GPU = re.compile(r"NVIDIA|Tesla|GeForce|Quadro|TITAN|GRID|A100|AMD Instinct|AMD Radeon")


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_name() -> str:
    """Return the processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def gpus() -> list[int]:
    """Return the indices of this machine's NVIDIA GPUs, or of those that CUDA_VISIBLE_DEVICES names."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [int(part) for part in visible.split(",") if part.strip().isdigit()]
    return sorted(int(p.name[6:]) for p in Path("/dev").glob("nvidia[0-9]*") if p.name[6:].isdigit())


def gpu_name() -> str | None:
    """Return the first GPU's name from the NVIDIA driver; None where the driver does not name one."""
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        if match := re.search(r"^Model:\s*(.+?)\s*$", file.read_text(errors="replace"), re.MULTILINE):
            return match[1]
    return None


def is_gpu(hardware: str) -> bool:
    """Return whether a record's ``hardware`` names a GPU."""
    return _GPU.match(hardware) is not None

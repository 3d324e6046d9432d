"""The machine this process runs on: its cores, processor and GPUs, found without loading any GPU library."""

import ctypes
import os
import platform
import re
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

# The names that torch.cuda.get_device_name returns start like this; a processor's name does not.
_GPU = re.compile(r"NVIDIA|Tesla|GeForce|Quadro|TITAN|GRID|A100|AMD Instinct|AMD Radeon")


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def wait_without_spinning() -> None:
    """Let the threads of an operation give up their core soon while they wait for each other.

    It holds for child processes, and for this one if torch is not imported yet. With GNU's OpenMP a thread looks
    300,000 times, for milliseconds, before it sleeps. Where other work has the core that the last thread needs, every
    operation takes that long: ``make bench NAME=busy_core`` measures it. What the user has set stays.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "3000"


def cpu_name() -> str:
    """Return the processor's model name."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def gpus() -> list[str]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names, by index or UUID, else this machine's NVIDIA GPUs by index.

    As in CUDA, what follows a name of another form does not count.
    """
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = (part.strip() for part in visible.split(","))
        return list(takewhile(lambda name: name.isdigit() or name.startswith(("GPU-", "MIG-")), names))
    devices = (path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
    return sorted(filter(str.isdigit, devices), key=int)


def has_driver() -> bool:
    """Return whether the library of NVIDIA's driver can be loaded, as CUDA does."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def gpu_name() -> str | None:
    """Return the first GPU's name from the NVIDIA driver; None where the driver does not name one."""
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        if match := re.search(r"^Model:\s*(.+?)\s*$", file.read_text(errors="replace"), re.MULTILINE):
            return match[1]
    return None


def is_gpu(hardware: str) -> bool:
    """Return whether a record's ``hardware`` names a GPU."""
    return _GPU.match(hardware) is not None

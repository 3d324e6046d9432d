"""Stage `card`: the GPU, its driver and libraries, and what it reaches: copies, and products of matrices."""

import platform
import subprocess
import time
from collections.abc import Callable

import torch

from benchmarks.gpu.stage_order import StageOrder
from harness.hardware import cores, cpu_name
from harness.store import provenance
from harness.training.precision import set_float32

NAME = "card"
QUERY = ("name", "driver_version", "memory.total", "clocks.max.sm", "power.limit")


def main() -> None:
    order = StageOrder.from_command_line()
    if order.smoke:
        torch.set_num_threads(1)
    order.findings.add(NAME, "machine", **machine(order.device))
    device, size = torch.device(order.device), 256 if order.smoke else 8192
    size_of_copy = 1 << (20 if order.smoke else 30)  # bytes
    source, target = (torch.ones(size_of_copy, dtype=torch.uint8, device=device) for _ in range(2))
    copied = 2 * size_of_copy / shortest_time(lambda: target.copy_(source), device)  # read and written
    order.findings.add(NAME, "copy", gb_per_s=round(copied / 1e9, 1))
    host = torch.ones(size_of_copy // 4, dtype=torch.uint8, pin_memory=not order.smoke)
    to_device = len(host) / shortest_time(lambda: target[: len(host)].copy_(host, non_blocking=True), device)
    order.findings.add(NAME, "copy to device", gb_per_s=round(to_device / 1e9, 1))
    for precision in ("bf16", "tf32", "float32"):
        rate = matrix_peak(size, precision, device)
        order.findings.add(NAME, "matrix peak", precision=precision, tflops=round(rate / 1e12, 3))


def machine(device: str) -> dict[str, object]:
    """Return the names and versions that figures depend on."""
    commit, dirty = provenance.git_state()
    value: dict[str, object] = {
        "card": torch.cuda.get_device_name() if device == "cuda" else f"no GPU: {cpu_name()}",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cores": cores(),
        "commit": commit[:12] + ("+changes" if dirty else ""),
    }
    if device == "cuda":
        value["memory_gib"] = round(torch.cuda.mem_get_info()[1] / 2**30, 1)
        value["nvidia_smi"] = nvidia_smi()
    return value


def nvidia_smi() -> dict[str, str]:
    """Return what the driver's tool says of the first GPU; nothing where there is no such tool."""
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(QUERY, (part.strip() for part in lines[0].split(",")), strict=False)) if lines else {}


def matrix_peak(size: int, precision: str, device: torch.device) -> float:
    """Return the operations per second of a product of two square matrices of random numbers."""
    set_float32(precision)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / shortest_time(lambda: a @ b, device)


def shortest_time(work: Callable[[], object], device: torch.device, repeats: int = 10) -> float:
    """Return the seconds of the quickest of several repeats, without the first two."""
    seconds = []
    for _ in range(repeats + 2):
        synchronise(device)
        began = time.perf_counter()
        work()
        synchronise(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds[2:])


def synchronise(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()

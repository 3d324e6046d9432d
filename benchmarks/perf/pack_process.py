"""One pack in a process of its own, with the code of the working tree that PYTHONPATH names.

This file itself also runs with the code of c128804, so it imports only what both have.

``speed PRECISION``: trains the pack of five for every line on stdin and prints the seconds; first the members' SHA-256.
``peak PRECISION``: trains the pack of eight and prints what it needs of memory.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch

from benchmarks.perf.cifar import THREADS, Trainer

try:
    from harness.training.host_memory import retain_freed_memory
except ImportError:  # at c128804
    from harness.training.memory import keep as retain_freed_memory

FIVE = ("kd", "fitnets", "crd", "at", "sp")
EIGHT = ("student", "kd", "fitnets", "crd", "rekd", "at", "sp", "rkd")
STEPS, PEAK_STEPS = 2, 4


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 of names and values: of weights, buffers and momenta."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha256.update(name.encode())
        sha256.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())
    return sha256.hexdigest()


def memory(field: str) -> int:
    """Return a field of Linux's status of this process, in MB: VmRSS, the memory now, or VmHWM, its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) // 1024


def main() -> None:
    measured, precision = sys.argv[1:]
    retain_freed_memory()  # as a job does
    torch.set_num_threads(THREADS)
    if measured == "peak":
        imported = memory("VmRSS")
        trainer = Trainer(PEAK_STEPS, precision)
        with_data = memory("VmRSS")
        trainer.train(EIGHT)
        peak = memory("VmHWM")
        print(json.dumps({"peak_MB": peak, "imports_MB": imported, "imports_and_data_MB": with_data}))
        return
    trainer = Trainer(STEPS, precision)
    _, tensors = trainer.train(FIVE)
    print(json.dumps({name: digest(own) for name, own in tensors.items()}), flush=True)
    for _ in sys.stdin:
        print(trainer.train(FIVE)[0], flush=True)


if __name__ == "__main__":
    main()

"""The plain PyTorch loop of KD that one writes first, in a process that trains for some seconds whenever it is asked.

A DataLoader over torchvision's PIL transforms with pinned memory and workers, the teacher under no_grad, SGD, `.item()`
each step. It reads orders as lines of JSON. After a warm-up it says that it is ready, waits for a line, so that several
processes train at the same time, and answers with the images per second.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.perf.cifar import INFO, fresh
from benchmarks.perf.torchvision_cifar import Cifar
from harness.training.precision import autocast, set_float32

WARM_UP_STEPS = 20
READY = "ready"


@dataclass(frozen=True)
class PlainOrder:
    """The pair that a process trains, and for how long."""

    teacher: str
    student: str
    precision: str
    device: str
    batch: int
    images: int  # of the training set
    workers: int  # of the DataLoader
    seconds: float


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(train(PlainOrder(**json.loads(line)))), flush=True)


def train(order: PlainOrder) -> float:
    """Train for the order's seconds after a warm-up; return the images per second."""
    set_float32(order.precision)
    torch.set_num_threads(1)  # the images are processed by the workers
    device = torch.device(order.device)
    teacher, student = (fresh(name).to(device) for name in (order.teacher, order.student))
    teacher.eval()
    optimiser = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    temperature, loss_sum, began, steps = 4.0, 0.0, 0.0, 0
    for batch in _batches(order):
        if steps == WARM_UP_STEPS:
            print(READY, flush=True)
            sys.stdin.readline()
            began = time.perf_counter()
        elif steps > WARM_UP_STEPS and time.perf_counter() - began >= order.seconds:
            break
        x, y = (part.to(device, non_blocking=True) for part in batch)
        with torch.no_grad(), autocast(device, order.precision):
            from_teacher = teacher(x).logits
        with autocast(device, order.precision):
            logits = student(x).logits
        log_p = F.log_softmax(logits.float() / temperature, dim=1)
        p_teacher = F.softmax(from_teacher.float() / temperature, dim=1)
        kd = F.kl_div(log_p, p_teacher, reduction="batchmean") * temperature**2
        loss = 0.1 * F.cross_entropy(logits.float(), y) + 0.9 * kd
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss_sum += loss.item()
        steps += 1
    return (steps - WARM_UP_STEPS) * order.batch / (time.perf_counter() - began)


def _batches(order: PlainOrder) -> Iterator[list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shape = (order.images, *INFO.image_shape)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    loader = DataLoader(
        Cifar(pixels, torch.arange(order.images) % INFO.classes), order.batch, shuffle=True, drop_last=True,
        num_workers=order.workers, pin_memory=order.device == "cuda", persistent_workers=order.workers > 0,
    )  # fmt: skip
    while True:  # the first batch of an epoch comes late, as in any such loop
        yield from loader


class PlainLoops:
    """Processes of the plain loop, which are started once and then train together."""

    def __init__(self, count: int) -> None:
        command = [sys.executable, "-m", "benchmarks.gpu.plain_loop"]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]

    def train(self, orders: Sequence[PlainOrder]) -> list[float]:
        """Let as many processes as there are orders train at the same time; return the images per second of each.

        Raises:
            RuntimeError: a process has died.
        """
        used = self._processes[: len(orders)]
        for process, order in zip(used, orders, strict=True):
            self._write(process, json.dumps(asdict(order)))
        if any(self._read(process) != READY for process in used):
            raise RuntimeError("a process of the plain loop said something else than that it is ready")
        for process in used:
            self._write(process, "go")
        return [float(self._read(process)) for process in used]

    @staticmethod
    def _write(process: "subprocess.Popen[str]", line: str) -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died, which its missing answer tells
            process.stdin.write(line + "\n")
            process.stdin.flush()

    @staticmethod
    def _read(process: "subprocess.Popen[str]") -> str:
        assert process.stdout is not None
        if not (line := process.stdout.readline()):
            raise RuntimeError("a process of the plain loop has died")
        return line.strip()

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()


if __name__ == "__main__":
    main()

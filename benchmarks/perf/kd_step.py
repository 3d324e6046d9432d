"""Bench of our KD step against a plain PyTorch loop of the same step, each in its own process, measured in turn.

The plain loop is what one writes first: NCHW float32, the teacher under no_grad, `.item()` each step, and a DataLoader
over torchvision's PIL transforms, with two workers or none; the faster one counts. Ours is measured in bf16 and in
float32. The ratio is for bf16, which pays if the CPU has instructions for it; `detail.float32` has the ratio for the
same arithmetic, where both sides spend nearly all their time in the same convolution kernels.
"""

import sys
import time
from collections.abc import Callable

from benchmarks.perf.measurement import ChildProcess, emit, in_turn, ratio_of_pairs, say

STEPS, PAIRS = 10, 6
PRECISIONS = ("float32", "bf16")
PLAIN = ("plain 0 workers", "plain 2 workers")


def ours(precision: str) -> Callable[[], float]:
    from benchmarks.perf.cifar import Trainer
    from harness.training import host_memory

    host_memory.retain_freed_memory()  # as a job does
    trainer = Trainer(STEPS, precision)
    return lambda: trainer.train(("kd",))[0]


def plain(workers: int) -> Callable[[], float]:
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader

    from benchmarks.perf.cifar import BATCH, STUDENT, TEACHER, clock, fresh
    from benchmarks.perf.torchvision_cifar import Cifar

    teacher, student = fresh(TEACHER).eval(), fresh(STUDENT).train()
    optimiser = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    batches = iter(DataLoader(Cifar(), BATCH, shuffle=True, num_workers=workers))
    temperature = 4.0

    def train() -> float:
        began = clock()
        loss_sum = 0.0
        for _ in range(STEPS):
            x, y = next(batches)
            with torch.no_grad():
                teacher_logits = teacher(x).logits
            logits = student(x).logits
            log_p = F.log_softmax(logits / temperature, dim=1)
            p_teacher = F.softmax(teacher_logits / temperature, dim=1)
            kd = F.kl_div(log_p, p_teacher, reduction="batchmean") * temperature**2
            loss = 0.1 * F.cross_entropy(logits, y) + 0.9 * kd
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss_sum += loss.item()
        return clock() - began

    return train


def child(side: str) -> None:
    """Train STEPS steps for every line on stdin and print their seconds."""
    import torch

    from benchmarks.perf.cifar import THREADS

    torch.set_num_threads(THREADS)
    train = ours(side) if side in PRECISIONS else plain(int(side.split()[1]))
    train()  # warm up
    print("ready", flush=True)
    for _ in sys.stdin:
        print(train(), flush=True)


class Side(ChildProcess):
    """A child process that measures its side at each call."""

    def __init__(self, name: str):
        super().__init__("-m", "benchmarks.perf.kd_step", name)

    def __call__(self) -> float:
        time.sleep(0.5)  # the workers of the previous side fill their queues again
        return super().__call__()


def main() -> None:
    from benchmarks.perf.cifar import BATCH, BUSY, CLOCK, STUDENT, TEACHER, THREADS

    plains = PLAIN[:1] if BUSY else PLAIN  # CPU seconds of workers would not count
    say("  starting the processes")
    sides: dict[str, Callable[[], float]] = {name: Side(name) for name in (*PRECISIONS, *plains)}
    try:
        seconds = in_turn(sides, PAIRS, budget_s=90)
    finally:
        for side in sides.values():
            assert isinstance(side, Side)
            side.close()
    per_second = {name: round(STEPS * BATCH / min(s), 1) for name, s in seconds.items()}
    best = max(plains, key=lambda name: per_second[name])
    ratio, spread = ratio_of_pairs(seconds[best], seconds["bf16"])
    same_arithmetic, spread_float32 = ratio_of_pairs(seconds[best], seconds["float32"])
    detail = {
        "pair": f"{TEACHER} -> {STUDENT}",
        "batch": BATCH,
        "threads": THREADS,
        "clock": CLOCK,
        "against": best,
        "images_per_s": per_second,
        "precision": "bf16",
        **spread,
        "float32": {"ratio": round(same_arithmetic, 3), **spread_float32},
    }
    emit("kd_step", ratio, 1.3, detail)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(sys.argv[1])
    else:
        main()

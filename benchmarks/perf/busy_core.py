"""Bench of two threads of which one shares its core with other work: torch's own waiting, against the harness's.

The same training steps are measured on idle cores too, where waiting without spinning must cost nothing.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.perf.measurement import ChildProcess, emit, in_turn, ratio_of_pairs, say
from harness.hardware import cores, wait_without_spinning

STEPS, PAIRS = 2, 5


def child() -> None:
    """Train a student for STEPS steps for every line on stdin, and print the seconds."""
    import time

    import torch

    from benchmarks.perf.cifar import Trainer

    torch.set_num_threads(2)
    trainer = Trainer(STEPS, "bf16")
    trainer.train(("student",))
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        trainer.train(("student",))
        print(time.perf_counter() - began, flush=True)


@contextmanager
def _other_work() -> Iterator[None]:
    """Keep a core busy, as a process of its own session: Linux shares cores between sessions before threads."""
    code = "while True: pass"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    if cores() < 2:
        say("busy_core: skipped, it needs two cores")
        return
    two = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, two)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        os.environ.pop(name, None)
    command = ("-m", "benchmarks.perf.busy_core", "child")
    say("  starting the processes")
    spinning = ChildProcess(*command)
    wait_without_spinning()
    sleeping = ChildProcess(*command)
    sides = {"spinning": spinning, "sleeping": sleeping}
    idle = in_turn(sides, PAIRS)
    with _other_work():
        busy = in_turn(sides, PAIRS)
    spinning.close()
    sleeping.close()
    ratio, spread = ratio_of_pairs(busy["spinning"], busy["sleeping"])
    detail = {
        "idle_cores": round(ratio_of_pairs(idle["spinning"], idle["sleeping"])[0], 3),
        "threads": 2,
        "seconds": {
            f"{name}, {cores}": round(min(s[name]), 3) for cores, s in (("idle", idle), ("busy", busy)) for name in s
        },
        **spread,
    }
    emit("busy_core", ratio, 2, detail)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child()
    else:
        main()

"""Bench of a KD step on two views of each image against two KD steps on one view: two forward passes of each model.

A step on two views also has one optimiser step and one batch of targets less, so that 1 is not the most it can reach.
Both sides have the same images, augmented by the same crops and flips.
"""

import torch

from benchmarks.perf.cifar import BATCH, CLOCK, STUDENT, TEACHER, THREADS, Trainer
from benchmarks.perf.measurement import emit, in_turn, ratio_of_pairs
from harness.data.load.view import View
from harness.training import host_memory

STEPS, PAIRS = 4, 8
METHOD = "benchmarks.perf.two_view_kd:TwoViewKD"


def main() -> None:
    host_memory.retain_freed_memory()  # as a job does
    torch.set_num_threads(THREADS)
    one, two = Trainer(STEPS), Trainer(STEPS, views={"strong": View(4, flip=True, stream="strong")})
    sides = {
        "two steps": lambda: one.train(("kd",))[0] + one.train(("kd",))[0],
        "two views": lambda: two.train((METHOD,))[0],
    }
    for side in sides.values():
        side()
    seconds = in_turn(sides, PAIRS)
    ratio, spread = ratio_of_pairs(seconds["two steps"], seconds["two views"])
    detail = {"pair": f"{TEACHER} -> {STUDENT}", "batch": BATCH, "threads": THREADS, "clock": CLOCK, **spread}
    emit("two_views", ratio, 0.91, detail)


if __name__ == "__main__":
    main()

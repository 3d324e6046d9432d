"""Bench of a pack of four methods against the same runs one after another; the weights must be equal, bit for bit."""

import torch

from benchmarks.perf.cifar import BATCH, CLOCK, STUDENT, TEACHER, THREADS, Trainer
from benchmarks.perf.measurement import emit, in_turn, ratio_of_pairs
from harness.training import host_memory

METHODS = ("kd", "fitnets", "crd", "rekd")
STEPS, PAIRS = 2, 15


def main() -> None:
    host_memory.retain_freed_memory()  # as a job does
    torch.set_num_threads(THREADS)
    Trainer(1).train(METHODS)  # warm up
    trainer = Trainer(STEPS)
    packed: dict[str, dict[str, torch.Tensor]] = {}
    single: dict[str, dict[str, torch.Tensor]] = {}

    def pack() -> float:
        seconds, tensors = trainer.train(METHODS)
        packed.update(tensors)
        return seconds

    def one_by_one() -> float:
        total = 0.0
        for name in METHODS:
            seconds, tensors = trainer.train((name,))
            single.update(tensors)
            total += seconds
        return total

    seconds = in_turn({"one by one": one_by_one, "pack": pack}, PAIRS)
    for name in METHODS:
        for key, value in packed[name].items():
            assert torch.equal(value, single[name][key]), f"{name}: {key} differs between pack and single run"
    ratio, spread = ratio_of_pairs(seconds["one by one"], seconds["pack"])
    images = len(METHODS) * STEPS * BATCH
    detail = {
        "pair": f"{TEACHER} -> {STUDENT}",
        "methods": METHODS,
        "batch": BATCH,
        "threads": THREADS,
        "clock": CLOCK,
        "images_per_s_pack": round(images / min(seconds["pack"]), 1),
        "images_per_s_one_by_one": round(images / min(seconds["one by one"]), 1),
        "bit_identical": True,
        **spread,
    }
    emit("pack_throughput", ratio, 1.4, detail)


if __name__ == "__main__":
    main()

"""Bench of KD with cached teacher logits (``teacher_top_k``) against KD that runs the teacher, with the same code."""

import tempfile
from pathlib import Path

import torch

from benchmarks.perf.cifar import BATCH, CLOCK, INFO, STUDENT, TEACHER, THREADS, Trainer
from benchmarks.perf.measurement import emit, in_turn, ratio_of_pairs
from harness.training import host_memory
from harness.training.distributed.ranks import ONE_RANK
from harness.training.teacher_logits import CachedLogits

STEPS, PAIRS, K = 12, 10, 32


def main() -> None:
    host_memory.retain_freed_memory()  # as a job does
    torch.set_num_threads(THREADS)
    trainer = Trainer(STEPS)
    with tempfile.TemporaryDirectory() as folder:
        cached = CachedLogits(Path(folder), K, STEPS * BATCH, INFO.classes, ONE_RANK)
        trainer.train(("kd",), cached)  # computes them
        (file,) = Path(folder).iterdir()
        sides = {
            "teacher": lambda: trainer.train(("kd",))[0],
            "kept": lambda: trainer.train(("kd",), cached)[0],
        }
        seconds = in_turn(sides, PAIRS)
        image_bytes = file.stat().st_size / (STEPS * BATCH)
    ratio, spread = ratio_of_pairs(seconds["teacher"], seconds["kept"])
    detail = {
        "pair": f"{TEACHER} -> {STUDENT}",
        "k": K,
        "batch": BATCH,
        "threads": THREADS,
        "clock": CLOCK,
        "steps": STEPS,  # one of them runs the teacher, to check; in a whole epoch one in a thousand does
        "ms_per_image_teacher": round(1000 * min(seconds["teacher"]) / (STEPS * BATCH), 3),
        "ms_per_image_kept": round(1000 * min(seconds["kept"]) / (STEPS * BATCH), 3),
        "bytes_per_image_and_epoch": round(image_bytes),
        **spread,
    }
    emit("kept_logits", ratio, 1.0, detail)


if __name__ == "__main__":
    main()

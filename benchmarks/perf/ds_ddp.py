"""Bench of engines: DeepSpeed at ZeRO stage 0 against the native engine, in two processes of one thread each, on gloo.

The same two processes train a KD student with either engine in turn, so that both see the same machine and the same
collectives.
"""

import os
import subprocess
import sys
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.perf.measurement import ROOT, emit, in_turn, ratio_of_pairs, say
from harness.training.distributed import rendezvous

STEPS, PAIRS, WORLD = 5, 8, 2
ENGINES = ("native", "deepspeed")


def child() -> None:
    """For each engine named on stdin, train STEPS steps and print their seconds."""
    import torch

    from benchmarks.perf.cifar import STUDENT, TEACHER, Trainer, clock, science
    from harness.training import host_memory
    from harness.training.distributed.ranks import join_ranks
    from harness.training.engines.deepspeed import DeepSpeedEngine
    from harness.training.engines.native import NativeEngine
    from harness.training.member import Member
    from harness.training.step import compute_step
    from methods.base import Batch, SampleRandom

    host_memory.retain_freed_memory()  # as a job does
    torch.set_num_threads(1)
    with join_ranks() as ranks:
        trainer = Trainer(STEPS, ranks=ranks)
        student = science("kd", TEACHER, STUDENT)
        engines = {"native": NativeEngine, "deepspeed": partial(DeepSpeedEngine, zero_stage=0)}
        members = {
            name: Member(student, trainer.teacher, trainer.targets, trainer.task, ranks.device(), ranks, engine)
            for name, engine in engines.items()
        }

        def train(member: Member) -> float:
            began = clock()
            for images, targets, indices in trainer.loader.epoch(0):
                outputs = trainer.teacher(images, (), "float32", len(targets))
                batch = Batch(images, targets, indices, SampleRandom(0, len(targets)))
                compute_step(member, batch, outputs, len(indices))
                member.count_step(len(indices))
            return clock() - began

        for member in members.values():  # warm up
            train(member)
        print("ready", flush=True)
        for line in sys.stdin:
            print(train(members[line.strip()]), flush=True)


class Sides:
    """The processes of both sides. A call measures one engine; the slower process counts."""

    def __init__(self) -> None:
        meeting = Path(tempfile.mkdtemp()) / "rendezvous"
        rendezvous.create_rendezvous(meeting)
        group = {rendezvous.FILE: str(meeting), "WORLD_SIZE": str(WORLD)}
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.perf.ds_ddp", "child"], stdin=subprocess.PIPE, cwd=ROOT, text=True,
                env=os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE, bufsize=1,
            )
            for rank in range(WORLD)
        ]  # fmt: skip
        self._answers()

    def __call__(self, engine: str) -> float:
        for process in self._processes:
            assert process.stdin
            process.stdin.write(engine + "\n")
        return max(map(float, self._answers()))

    def close(self) -> None:
        for process in self._processes:
            assert process.stdin
            process.stdin.close()
        for process in self._processes:
            process.wait()

    def _answers(self) -> list[str]:
        lines = [process.stdout.readline() for process in self._processes if process.stdout]
        if not all(lines):
            raise SystemExit("ds_ddp: a measured process ended early")
        return lines


def main() -> None:
    if find_spec("deepspeed") is None:
        say("ds_ddp: skipped, deepspeed is not installed")
        return
    from benchmarks.perf.cifar import BATCH, CLOCK, STUDENT, TEACHER

    say("  starting the processes")
    sides = Sides()
    try:
        seconds = in_turn({engine: partial(sides, engine) for engine in ENGINES}, PAIRS, budget_s=90)
    finally:
        sides.close()
    ratio, spread = ratio_of_pairs(seconds["native"], seconds["deepspeed"])
    detail = {
        "pair": f"{TEACHER} -> {STUDENT}",
        "method": "kd",
        "batch": BATCH,
        "processes": WORLD,
        "threads_of_each": 1,
        "clock": CLOCK,
        "images_per_s": {name: round(STEPS * BATCH / min(s), 1) for name, s in seconds.items()},
        **spread,
    }
    emit("ds_ddp", ratio, 0.95, detail)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child()
    else:
        main()

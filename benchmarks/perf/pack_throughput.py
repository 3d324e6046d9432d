"""Bench of a pack of five methods: against the same runs one after another, and against an earlier commit's pack.

Weights, buffers and momenta must be equal in all of them, bit for bit. Where the clone has the earlier commit, each
precision gets a line of its own, with the convolutions' share of a step; a last line has the peak memory of a pack of
eight in both.
"""

import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.perf.cifar import BATCH, CLOCK, STUDENT, TEACHER, THREADS, Trainer
from benchmarks.perf.measurement import ROOT, ChildProcess, emit, in_turn, ratio_of_pairs, run_python, say
from benchmarks.perf.pack_process import EIGHT, FIVE, STEPS
from harness.training import host_memory

PAIRS, BUDGET_S = 15, 60.0
BASE = "c128804"  # the code before the work on CPU speed and memory
SPEED_TARGETS = {"float32": 1.15, "bf16": 1.3}
PEAK_TARGET = 0.7
SETTING = {"pair": f"{TEACHER} -> {STUDENT}", "batch": BATCH, "threads": THREADS}
PROGRAM = Path(__file__).with_name("pack_process.py")


def one_by_one() -> None:
    """Compare a pack with the same runs one after another, in this process."""
    host_memory.retain_freed_memory()  # as a job does
    torch.set_num_threads(THREADS)
    Trainer(1).train(FIVE)  # warm up
    trainer = Trainer(STEPS)
    packed: dict[str, dict[str, torch.Tensor]] = {}
    single: dict[str, dict[str, torch.Tensor]] = {}

    def train_pack() -> float:
        seconds, tensors = trainer.train(FIVE)
        packed.update(tensors)
        return seconds

    def train_one_by_one() -> float:
        total = 0.0
        for name in FIVE:
            seconds, tensors = trainer.train((name,))
            single.update(tensors)
            total += seconds
        return total

    seconds = in_turn({"one by one": train_one_by_one, "pack": train_pack}, PAIRS)
    for name in FIVE:
        for key, value in packed[name].items():
            assert torch.equal(value, single[name][key]), f"{name}: {key} differs between pack and single run"
    ratio, spread = ratio_of_pairs(seconds["one by one"], seconds["pack"])
    detail = {
        **SETTING,
        "methods": FIVE,
        "clock": CLOCK,
        "images_per_s_pack": images_per_s(seconds["pack"]),
        "images_per_s_one_by_one": images_per_s(seconds["one by one"]),
        "bit_identical": True,
        **spread,
    }
    emit("pack_throughput", ratio, 1.4, detail)


def images_per_s(seconds: list[float]) -> float:
    return round(len(FIVE) * STEPS * BATCH / min(seconds), 1)


@contextmanager
def base_tree() -> Iterator[Path | None]:
    """Check out the earlier commit into a temporary folder; None: this clone does not have it."""
    with TemporaryDirectory(prefix="pack_throughput_") as folder:
        archive = Path(folder) / "tree.tar"
        command = ["git", "archive", f"--output={archive}", BASE]
        if subprocess.run(command, cwd=ROOT, capture_output=True).returncode:
            yield None
            return
        with tarfile.open(archive) as tar:
            tar.extractall(Path(folder) / "tree", filter="data")
        yield Path(folder) / "tree"


def speed(precision: str, base: Path) -> None:
    """Compare the packs of both commits, each in a process of its own."""
    say(f"  {precision}: starting the processes")
    trees = {"base": base, "now": ROOT}
    sides = {name: ChildProcess(str(PROGRAM), "speed", precision, tree=tree) for name, tree in trees.items()}
    digests = {name: json.loads(side.first_line) for name, side in sides.items()}
    for method in FIVE:
        assert digests["base"][method] == digests["now"][method], (
            f"{precision}: {method}'s tensors differ from {BASE}'s"
        )
    calls: dict[str, Callable[[], float]] = {**sides}
    try:
        seconds = in_turn(calls, PAIRS, BUDGET_S)
    finally:
        for side in sides.values():
            side.close()
    ratio, spread = ratio_of_pairs(seconds["base"], seconds["now"])
    detail = {
        **SETTING,
        "methods": FIVE,
        "clock": CLOCK,
        "against": BASE,
        "images_per_s": {name: images_per_s(s) for name, s in seconds.items()},
        "bit_identical": True,
        **spread,
        # The bound: convolutions of a step, in their place and the same ones alone.
        "convolutions": json.loads(run_python("-m", "benchmarks.perf.convolutions", precision)),
    }
    emit(f"pack_speed_{precision}", ratio, SPEED_TARGETS[precision], detail)


def peak_memory(precision: str, base: Path) -> None:
    """Compare the peak memory of both commits' packs of eight, each in a process of its own."""
    needs: dict[str, dict[str, Any]] = {}
    for name, tree in (("base", base), ("now", ROOT)):
        side = ChildProcess(str(PROGRAM), "peak", precision, tree=tree)
        needs[name] = json.loads(side.first_line)
        side.close()
        say(f"  {name}: {needs[name]}")
    detail = {**SETTING, "methods": EIGHT, "precision": precision, "against": BASE, **needs}
    above = {name: need["peak_MB"] - need["imports_and_data_MB"] for name, need in needs.items()}
    detail["ratio_without_imports_and_data"] = round(above["now"] / above["base"], 3)
    ratio = needs["now"]["peak_MB"] / needs["base"]["peak_MB"]
    emit(f"pack_peak_memory_{precision}", ratio, PEAK_TARGET, detail, better="lower")


def main() -> None:
    one_by_one()
    capabilities = torch.cpu.get_capabilities()
    has_bf16 = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    precisions = ("float32", "bf16") if has_bf16 else ("float32",)
    with base_tree() as base:
        if base is None:
            say(f"  this clone has no commit {BASE}: speed and memory are not compared with it")
            return
        for precision in precisions:
            speed(precision, base)
        for precision in precisions:
            peak_memory(precision, base)


if __name__ == "__main__":
    main()

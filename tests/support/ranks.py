"""Packs trained by several processes."""

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

from slurm.entry import free_port
from tests.support.bench import ENVIRONMENT, Bench
from tests.support.cli import PATIENCE

PROCESS = """
import itertools, json, os, signal, sys
import torch
from harness.training.job import run_pack
from harness.training.job_order import JobOrder
from harness.training.member import Member

store, run_ids, digests, options = sys.argv[1], sys.argv[2].split(","), sys.argv[3], json.loads(sys.argv[4])
order = {"store": store, "run_ids": run_ids, "data": None, "weights": {}, "threads": 1}
steps = itertools.count(1)
stop_after, kill_after, _ = (options.pop(name, None) for name in ("stop_after", "kill_after", "checkpoint_seconds"))
def should_stop():
    if (step := next(steps)) == kill_after:
        os.kill(os.getpid(), signal.SIGKILL)
    return step == stop_after
end_epoch = Member.end_epoch
def note(self):
    end_epoch(self)
    with open(digests, "a") as f:
        f.write(json.dumps({k: t.double().abs().sum().item().hex() for k, t in self.tensors().items()}) + chr(10))
Member.end_epoch = note
sys.exit(not run_pack(JobOrder.from_json(order | options), should_stop))
"""


def start_ranks(bench: Bench, world: int, *run_ids: str, **options: Any) -> list[subprocess.Popen[str]]:
    """Train a pack in `world` processes. Each writes digests of its tensors to a file after each epoch.

    ``options``: fields of the job; the step after which to stop or to be killed; seconds between checkpoints.
    """
    runs = bench.plan().plan.runs
    for run_id in run_ids:
        bench.store.write_science(run_id, runs[run_id].science)
    port = str(free_port())
    processes = []
    for rank in range(world):
        environment = {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment["KD_CHECKPOINT_SECONDS"] = str(options.get("checkpoint_seconds", 0.1))
        digests = str(bench.folder / f"digests-{rank}")
        args = [str(bench.store.root.resolve()), ",".join(run_ids), digests, json.dumps(options)]
        log = (bench.folder / f"log-{rank}").open("w")
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, *args], env=ENVIRONMENT | environment, cwd=bench.folder,
            stdout=log, stderr=log, text=True, start_new_session=True,
        )  # fmt: skip
        bench._started.append(process)
        processes.append(process)
    return processes


def train_ranks(bench: Bench, world: int, *run_ids: str, **options: Any) -> None:
    """Run ``start_ranks`` to its end, or to the step at which it is to stop or be killed."""
    codes = [process.wait(timeout=PATIENCE) for process in start_ranks(bench, world, *run_ids, **options)]
    expected = -signal.SIGKILL if "kill_after" in options else int("stop_after" in options)  # run_pack returns False
    assert codes == [expected] * world, [rank_log(bench, rank)[-3000:] for rank in range(world)]


def rank_log(bench: Bench, rank: int) -> str:
    return (bench.folder / f"log-{rank}").read_text()


def as_one_process(row: dict[str, Any], single: dict[str, Any], label: str) -> None:
    """Check that a run equals its single process up to rounding.

    ReLUs amplify rounding in time. Losses of the first epoch may differ by 3 parts in 1,000, of which FitNets' hint at
    its weight of 100 needs one; most differ by less than 1 in 10,000. Final accuracies may differ by 3 points of 355
    test images.
    """
    first = {c["name"]: c["value"] for c in single["curves"] if c["epoch"] == 1}
    losses = [c for c in row["curves"] if c["epoch"] == 1 and c["name"].startswith("train_")]
    assert losses
    for curve in losses:
        assert curve["value"] == pytest.approx(first[curve["name"]], rel=3e-3), f"{label} {curve['name']}"
    assert row["teacher_top1"] == single["teacher_top1"]
    assert abs(row["last_top1"] - single["last_top1"]) < 3, label

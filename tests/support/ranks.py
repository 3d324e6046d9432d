"""Packs trained by several processes."""

import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench import OFTEN, SELDOM, Bench
from tests.support.cli import PATIENCE
from tests.support.rendezvous import new_rendezvous
from tests.support.sockets import listening_sockets, thread_names


def _train(
    rank: int, folder: str, environment: dict[str, str], order: dict[str, Any], stop_after: int | None,
    kill_after: int | None,
) -> None:  # fmt: skip
    from harness.training.job import run_job
    from harness.training.job_order import JobOrder
    from harness.training.member import Member

    os.setsid()
    os.chdir(folder)
    os.environ.update(environment)
    log = os.open(f"log-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    steps = itertools.count(1)

    def should_stop() -> bool:
        if (step := next(steps)) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return step == stop_after

    end_epoch = Member.end_epoch

    def end_and_note(member: Member) -> None:
        end_epoch(member)
        digests = {name: tensor.double().abs().sum().item().hex() for name, tensor in member.tensors().items()}
        with Path(f"digests-{rank}").open("a") as file:
            file.write(json.dumps(digests) + "\n")
        assert {address for address, _ in listening_sockets()} <= {"127.0.0.1"}

    Member.end_epoch = end_and_note  # type: ignore[method-assign]
    finished = run_job(JobOrder.from_json(order), should_stop)
    assert "gloo" not in thread_names(), "gloo's threads would meet the interpreter's end"
    sys.exit(not finished)


def start_ranks(
    bench: Bench, world: int, *run_ids: str, stop_after: int | None = None, kill_after: int | None = None,
    checkpoint_seconds: float = OFTEN, **options: Any,
) -> list[Any]:  # fmt: skip
    """Train a pack in ``world`` processes. Each writes digests of its tensors to a file after each epoch.

    They stop or are killed after a number of steps, if one is given. ``options``: fields of the job's order.
    """
    runs = bench.plan().plan.runs
    for run_id in run_ids:
        bench.store.write_science(run_id, runs[run_id].science)
    order = {"run_ids": run_ids, "data": None, "weights": {}, "threads": 1, **options}
    order["store"] = str(bench.store.root.resolve())
    meeting = {"WORLD_SIZE": str(world), **new_rendezvous(bench.folder)}
    processes = []
    for rank in range(world):
        environment = {**meeting, "RANK": str(rank), "KD_CHECKPOINT_SECONDS": str(checkpoint_seconds)}
        arguments = (rank, str(bench.folder), environment, order, stop_after, kill_after)
        processes.append(bench.fork(_train, *arguments))
    return processes


def exit_code(process: Any) -> int:
    """Wait for a process's end and return its exit code."""
    process.join(PATIENCE)
    assert process.exitcode is not None, "it did not end"
    return int(process.exitcode)


def train_ranks(bench: Bench, world: int, *run_ids: str, **options: Any) -> None:
    """Run ``start_ranks`` to its end, or to the step at which it is to stop or be killed."""
    if "kill_after" not in options:
        options.setdefault("checkpoint_seconds", SELDOM)
    codes = [exit_code(process) for process in start_ranks(bench, world, *run_ids, **options)]
    expected = -signal.SIGKILL if "kill_after" in options else int("stop_after" in options)  # run_job returns False
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
    for name in ("last_agreement", "train_top1", "train_agreement"):  # shares of fewer images
        assert abs((row[name] or 0) - (single[name] or 0)) < 5, (label, name)

"""Several processes that train one run: the single process's result, and no hanging when one of them is lost."""

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from slurm.entry import free_port
from tests.commands import PATIENCE
from tests.integration.conftest import ENVIRONMENT, EPOCHS, MINE, SWEEP, Bench, until

PROCESS = """
import itertools, json, os, signal, sys
import torch
from harness.training.job import run_pack
from harness.training.job_order import JobOrder
from harness.training.member import Member

store, run_ids, digests, told = sys.argv[1], sys.argv[2].split(","), sys.argv[3], json.loads(sys.argv[4])
order = {"store": store, "run_ids": run_ids, "data": None, "weights": {}, "threads": 1}
steps = itertools.count(1)
stop_after, kill_after, _ = (told.pop(name, None) for name in ("stop_after", "kill_after", "checkpoint_seconds"))
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
sys.exit(not run_pack(JobOrder.from_json(order | told), should_stop))
"""


def start(bench: Bench, world: int, *run_ids: str, **told: Any) -> list[subprocess.Popen[str]]:
    """One pack, trained by `world` processes, each of which notes what it holds after each epoch.

    ``told``: what a job is told; after how many steps to stop or to be killed; seconds between checkpoints.
    """
    runs = bench.plan().plan.runs
    for run_id in run_ids:
        bench.store.write_science(run_id, runs[run_id].science)
    port = str(free_port())
    processes = []
    for rank in range(world):
        place = {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        place["KD_CHECKPOINT_SECONDS"] = str(told.get("checkpoint_seconds", 0.1))
        digests = str(bench.folder / f"digests-{rank}")
        args = [str(bench.store.root.resolve()), ",".join(run_ids), digests, json.dumps(told)]
        log = (bench.folder / f"log-{rank}").open("w")
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, *args], env=ENVIRONMENT | place, cwd=bench.folder, stdout=log, stderr=log,
            text=True, start_new_session=True,
        )  # fmt: skip
        bench._started.append(process)
        processes.append(process)
    return processes


def train(bench: Bench, world: int, *run_ids: str, **told: Any) -> None:
    """As ``start``, to the end it is told."""
    codes = [process.wait(timeout=PATIENCE) for process in start(bench, world, *run_ids, **told)]
    expected = -signal.SIGKILL if "kill_after" in told else int("stop_after" in told)  # run_pack says it is not done
    assert codes == [expected] * world, [log(bench, rank)[-3000:] for rank in range(world)]


def log(bench: Bench, rank: int) -> str:
    return (bench.folder / f"log-{rank}").read_text()


def as_one_process(row: dict[str, Any], alone: dict[str, Any], what: str) -> None:
    """To rounding, which values at a ReLU's edge amplify in time: every loss over the first epoch to one part in
    1,000, accuracies after the last to 3 points (of 355 test images)."""
    first = {c["name"]: c["value"] for c in alone["curves"] if c["epoch"] == 1}
    for curve in row["curves"]:
        if curve["epoch"] == 1 and curve["name"].startswith("train_"):
            assert curve["value"] == pytest.approx(first[curve["name"]], rel=1e-3), f"{what} {curve['name']}"
    assert row["teacher_top1"] == alone["teacher_top1"]
    assert abs(row["last_top1"] - alone["last_top1"]) < 3, what


@pytest.mark.parametrize("world", [2, 3])
def test_the_result_of_one_process(taught: Bench, finished: Bench, world: int) -> None:
    """The last batch of an epoch has 34 images, which three processes share unevenly."""
    run_ids = {method: cell.run_id for (method, seed), cell in finished.cells().items() if seed == 0}
    train(taught, world, *run_ids.values())
    for method, run_id in run_ids.items():
        got, expected = (load_file(b.store.student_weights(run_id)) for b in (taught, finished))
        assert got.keys() == expected.keys()
        if method == "student":
            for key, value in expected.items():
                torch.testing.assert_close(got[key], value, rtol=1e-5, atol=1e-5, msg=key)
        row, alone = taught.row(run_id), finished.row(run_id)
        assert row["processes"] == world and alone["processes"] == 1
        as_one_process(row, alone, method)
    held = [(taught.folder / f"digests-{rank}").read_text() for rank in range(world)]
    assert len(set(held)) == 1, "weights, banks and momenta are the same in all processes"
    assert len(held[0].splitlines()) == EPOCHS * len(run_ids)
    assert any("method.bank_s" in json.loads(line) for line in held[0].splitlines())


def test_one_process_killed_ends_all_and_they_go_on(taught: Bench, finished: Bench) -> None:
    taught.sweep = {**SWEEP, "methods": {"slow": {"use": f"{MINE}:Sleeps"}}, "seeds": [0]}
    (taught.folder / "slow").write_text("0.02")
    run_id = taught.cells()["slow", 0].run_id
    first, second = start(taught, 2, run_id)
    until(lambda: any(taught.store.checkpoints(run_id).glob("epoch-*")))
    os.kill(second.pid, signal.SIGKILL)
    assert first.wait(timeout=PATIENCE) not in (0, None)
    assert "lost each other" in (taught.folder / "log-0").read_text()
    assert taught.store.failure(run_id) is None, "a lost process is no failure of the run"
    (taught.folder / "slow").unlink()
    train(taught, 2, run_id)
    assert taught.row(run_id)["attempts"] == 2


def test_a_failure_in_every_process_is_the_members_own(taught: Bench, finished: Bench) -> None:
    taught.sweep = {**SWEEP, "methods": {"buggy": {"use": f"{MINE}:Raises"}, "kd": {}}, "seeds": [0]}
    (taught.folder / "raise-at").write_text("30")
    cells = taught.cells()
    train(taught, 2, cells["buggy", 0].run_id, cells["kd", 0].run_id)
    failure = taught.store.failure(cells["buggy", 0].run_id)
    assert failure and failure.cause == "ArithmeticError: this method has a bug"
    assert taught.row(cells["kd", 0].run_id)["status"] == "done"


def test_a_failure_in_one_process_ends_all_and_is_told(taught: Bench, finished: Bench) -> None:
    taught.sweep = {**SWEEP, "methods": {"buggy": {"use": f"{MINE}:RaisesInOneProcess"}, "kd": {}}, "seeds": [0]}
    cells = taught.cells()
    processes = start(taught, 2, cells["buggy", 0].run_id, cells["kd", 0].run_id)
    assert all(process.wait(timeout=PATIENCE) for process in processes)
    failure = taught.store.failure(cells["buggy", 0].run_id)
    assert failure and failure.cause == "ArithmeticError: only here"
    assert taught.store.failure(cells["kd", 0].run_id) is None

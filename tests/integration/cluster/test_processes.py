"""Runs that several processes share, on one node or on several."""

import os
import signal
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.bench import SELDOM, SWEEP, USER_METHODS, Bench, until
from tests.support.cluster_bench import ON_SLURM, SLOW, ClusterBench, ended, recorded_once, small
from tests.support.ranks import as_one_process

pytestmark = ON_SLURM
ABORTING = {"rekd": {}, "aborts": {"use": f"{USER_METHODS}:AbortsAtExit"}}


@pytest.mark.parametrize("nodes, tasks", [(2, 1), (1, 2)])
def test_processes_share_a_run(with_teacher: ClusterBench, finished: Bench, nodes: int, tasks: int) -> None:
    with_teacher.profile = {"resources": {"nodes": nodes, "tasks_per_node": tasks, "mem_gb": tasks}}
    with_teacher.sweep = {**small(0, 1), "methods": ABORTING}  # two jobs share each node
    as_single_processes(with_teacher, finished, nodes * tasks)


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")
@pytest.mark.parametrize("nodes, tasks", [(2, 1), (1, 2)])
def test_processes_share_a_run_under_deepspeed(
    with_teacher: ClusterBench, finished: Bench, nodes: int, tasks: int
) -> None:
    """DeepSpeed starts without mpi4py and its launcher."""
    resources = {"nodes": nodes, "tasks_per_node": tasks, "mem_gb": 2 * tasks, "engine": "deepspeed", "zero_stage": 1}
    with_teacher.profile = {"resources": resources}
    with_teacher.sweep = {**small(0), "methods": ABORTING}
    as_single_processes(with_teacher, finished, nodes * tasks)
    logs = [
        Path(attempt["log"]).read_text()
        for c in with_teacher.cells().values()
        for attempt in with_teacher.store.attempts(c.run_id)
    ]
    assert logs and all("engine deepspeed with ZeRO stage 1" in text for text in logs)


def as_single_processes(with_teacher: ClusterBench, finished: Bench, processes: int) -> None:
    """Train a sweep as close to a single process as test_ranks demands; every job ends with 0."""
    with_teacher.checkpoint_seconds = SELDOM
    result = with_teacher.run("sweep")
    assert result.returncode == 0, result.stderr
    recorded_once(with_teacher)
    for job in {note["job_id"] for note in with_teacher.submissions().values()}:
        until(lambda job=job: with_teacher.states_of(job) == {"COMPLETED"})
    for (method, seed), cell in with_teacher.cells().items():
        if method == "aborts":
            continue
        row = with_teacher.row(cell.run_id)
        assert row["processes"] == processes and row["attempts"] == 1
        as_one_process(row, finished.row(cell.run_id), f"{method} {seed}")


@pytest.mark.parametrize("signal_name", ["USR2", "KILL"])
def test_processes_stop_together_and_go_on_together(bench: ClusterBench, signal_name: str) -> None:
    bench.profile = {"resources": {"nodes": 2}}
    bench.sweep = {**SWEEP, "methods": SLOW, "seeds": [0]}
    bench.slow(0.2)
    sweep = bench.start("sweep")
    run_id = bench.cells()["slow", 0].run_id
    until(lambda: bench.mid_run(run_id))
    before = bench.fraction(run_id)
    if signal_name == "USR2":
        bench.cluster.client("scancel", "--signal=USR2", bench.job_of(run_id))
    else:
        second = next(pid for pid in pids_of(bench.store.root) if environment(pid).get("SLURM_PROCID") == "1")
        os.kill(second, signal.SIGKILL)
    bench.goes_on(run_id, before)
    bench.quick()
    ended(sweep)
    recorded_once(bench)


def pids_of(root: Path) -> list[int]:
    """Return the processes that submitit has started for a store."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if b"submitit.core._submit" in (line := entry.read_bytes()) and str(root).encode() in line:
                pids.append(int(entry.parent.name))
    return pids


def environment(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)

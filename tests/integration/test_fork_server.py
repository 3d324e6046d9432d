"""The fork server: its jobs are processes of their own, as if each had started Python."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm import fork_server
from slurm.fork_server import ForkServer
from tests.support.bench import SWEEP, USER_METHODS, Bench, until
from tests.support.cli import REPO

GPU = "GPU-5e6b0a4a-0d2c-4b1e-9f3a-0a1b2c3d4e5f"


@pytest.fixture
def server(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    """Return a server in which a module prints when it is imported."""
    monkeypatch.chdir(bench.folder)
    (bench.folder / "sitecustomize.py").write_text("print('hello')")
    monkeypatch.setenv("PYTHONPATH", f"{bench.folder}{os.pathsep}{REPO}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    server = ForkServer(bench.store.queue("none"))
    yield server
    server.close()


def start(server: ForkServer, bench: Bench, method: str, seed: int, gpu: str | None = None) -> Path:
    """Start a job for one run and return its log."""
    run = bench.plan().plan.runs[bench.cells()[method, seed].run_id]
    bench.store.write_science(run.run_id, run.science)
    log = bench.folder / f"{method}-{seed}.log"
    order = {"store": str(bench.store.root), "run_ids": [run.run_id], "data": None, "weights": {}, "threads": 1}
    server.start(log, order, gpu)
    return log


def facts(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in bench.folder.glob("process-*.json")]


def test_each_job_is_a_process_with_its_own_log_gpu_and_random_numbers(bench: Bench, server: ForkServer) -> None:
    bench.sweep = {**SWEEP, "methods": {"tells": {"use": f"{USER_METHODS}:TellsProcess"}}, "seeds": [0, 1]}
    logs = [start(server, bench, "tells", 0, GPU), start(server, bench, "tells", 1)]
    until(lambda: all(map(server.has_ended, logs)))
    assert len(bench.store.done_ids()) == 2, [log.read_text() for log in logs]
    for seed, log in enumerate(logs):
        ids = [bench.cells()["tells", s].run_id for s in (seed, 1 - seed)]
        assert [run_id in log.read_text() for run_id in ids] == [True, False]
    one, other = facts(bench)
    assert {one["gpus"], other["gpus"]} == {GPU, ""}
    assert one["pid"] != other["pid"] and one["parent"] == other["parent"] == server._process.pid
    assert one["slow_imports"] == [], "each takes as long as a short training"
    assert one["blas_threads"] is other["blas_threads"] is None
    assert one["numpy"] != other["numpy"] and one["python"] != other["python"]


def test_it_has_no_threads_and_no_gpu(bench: Bench, server: ForkServer) -> None:
    """A fork would lose threads, and a GPU that is in use cannot be used after one."""
    server.has_ended(Path())  # it has imported everything
    assert len(list(Path(f"/proc/{server._process.pid}/task").iterdir())) == 1
    assert not any("nvidia" in os.readlink(fd) for fd in Path(f"/proc/{server._process.pid}/fd").iterdir())


def test_jobs_outlive_it(bench: Bench, server: ForkServer) -> None:
    bench.sweep = {**SWEEP, "methods": {"slow": {"use": f"{USER_METHODS}:Sleeps"}}, "seeds": [0]}
    (bench.folder / "slow").write_text("0.02")
    log = start(server, bench, "slow", 0)
    run_id = bench.cells()["slow", 0].run_id
    until(lambda: bench.store.is_running(run_id))
    os.kill(server._process.pid, signal.SIGKILL)
    until(lambda: server.has_ended(log))  # nobody knows
    assert server.is_outdated
    (bench.folder / "slow").unlink()
    until(bench.store.record(run_id).exists)
    assert len(bench.store.attempts(run_id)) == 1


def test_changed_code_or_environment_needs_another(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server._version = fork_server._version()  # pytest changes the environment for each phase of a test
    assert not server.is_outdated
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert server.is_outdated
    monkeypatch.undo()
    monkeypatch.setattr(fork_server, "CHECKOUT", tmp_path)
    assert server.is_outdated

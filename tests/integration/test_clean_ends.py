"""Killed jobs and files that vanish: nothing is left behind, and one run does not end another."""

from pathlib import Path
from typing import Any

from harness.store.store import Store
from tests.support.bench import SWEEP, Bench, train_job


def test_a_sweep_removes_what_a_killed_job_has_left(bench: Bench, finished: Bench) -> None:
    bench.sweep = {**SWEEP, "methods": {"student": {}}, "seeds": [0]}
    (run_id,) = bench.plan().plan.runs
    bench.take(finished, run_id)
    bench.store.checkpoints(run_id).mkdir()
    (bench.store.checkpoints(run_id) / "epoch-000003-step-000000.safetensors").touch()
    assert bench.call("sweep", "--plan").code == 0 and bench.store.checkpoints(run_id).exists(), "it changes nothing"
    assert bench.call("sweep").code == 0
    assert not bench.store.checkpoints(run_id).exists()


def train_without_a_science(folder: str, run_ids: tuple[str, ...], *rest: Any) -> None:
    store = Store(Path(folder, "results"))
    (store.run(run_ids[0]) / "science.json").unlink()
    train_job(folder, run_ids, *rest)


def test_a_run_whose_science_vanished_fails_alone(bench: Bench) -> None:
    bench.sweep = {**SWEEP, "recipe": {**SWEEP["recipe"], "epochs": 1}, "methods": {"student": {}}, "seeds": [0, 1]}
    run_ids = tuple(bench.plan().plan.runs)
    assert bench.train(*run_ids, train=train_without_a_science) == 0
    failure = bench.store.failure(run_ids[0])
    assert failure and "science.json: missing or damaged; the sweep, run again with --retry-failed" in failure.cause
    assert bench.store.done_ids() == set(run_ids[1:]) and bench.store.failed_ids() == set(run_ids[:1])

"""Jobs killed, requeued, preempted, out of time or on a node that dies: their runs resume."""

import os
import signal
from pathlib import Path

import pytest

from tests.support.bench import METHODS, Bench, until
from tests.support.cluster_bench import ON_SLURM, SLOW, ClusterBench, ended, recorded_once, small
from tests.support.interruptions import same_end

pytestmark = ON_SLURM


def test_killed_requeued_and_signalled_to_stop(taught: ClusterBench, finished: Bench) -> None:
    """SIGKILL, scontrol requeue and scancel --signal=USR2 each interrupt another pack in its middle."""
    taught.sweep = small(0, 1, 2, **SLOW)
    taught.slow(1)
    sweep = taught.start("sweep")
    killed, requeued, signalled = (taught.cells()["kd", seed].run_id for seed in (0, 1, 2))
    until(lambda: all(map(taught.mid_run, (killed, requeued, signalled))))
    before = {k: taught.fraction(k) for k in (killed, requeued, signalled)}
    os.kill(taught.store.attempts(killed)[-1]["pid"], signal.SIGKILL)
    taught.cluster.client("scontrol", "requeue", taught.job_of(requeued))
    taught.cluster.client("scancel", "--signal=USR2", taught.job_of(signalled))
    for run_id, fraction in before.items():
        taught.goes_on(run_id, fraction)
    taught.quick()
    ended(sweep)
    recorded_once(taught)
    for seed in (0, 1, 2):
        same_end(taught, finished, *METHODS, seed=seed)
    assert len(taught.submissions()) == 1, "SLURM took them back without us"


def test_the_time_limit(taught: ClusterBench, finished: Bench) -> None:
    """A job that SLURM signals before its time limit checkpoints and requeues itself, without a sweep command."""
    taught.sweep = small(0, **SLOW)
    taught.profile = {"resources": {"time_minutes": 1}, "signal_seconds": 50}
    taught.slow(1)
    assert taught.run("sweep", "--detach").returncode == 0
    kd = taught.cells()["kd", 0].run_id
    until(lambda: taught.attempts(kd) >= 2)
    taught.cluster.client("scontrol", "update", f"jobid={taught.job_of(kd)}", "timelimit=10")  # once is enough
    taught.quick()
    until(lambda: taught.store.done_ids() == set(taught.plan().plan.runs))
    same_end(taught, finished, *METHODS)
    assert len(taught.submissions()) == 1
    assert "stopped by a signal: every run is checkpointed" in Path(taught.store.attempts(kd)[0]["log"]).read_text()


@pytest.mark.parametrize("partition", ["low", "lowcancel"])
def test_preemption(taught: ClusterBench, finished: Bench, partition: str) -> None:
    """Preempted jobs resume with PreemptMode REQUEUE and CANCEL, after a warning."""
    taught.sweep = small(0, **SLOW)
    taught.profile = {"partition": partition}
    taught.slow(1)
    sweep = taught.start("sweep")
    kd = taught.cells()["kd", 0].run_id
    until(lambda: taught.mid_run(kd))
    before = taught.fraction(kd)
    taught.preempt()
    taught.goes_on(kd, before)
    taught.quick()
    ended(sweep)
    recorded_once(taught)
    same_end(taught, finished, *METHODS)


def test_a_node_dies_and_comes_back(taught: ClusterBench, finished: Bench) -> None:
    taught.sweep = small(0, **SLOW)
    taught.slow(1)
    sweep = taught.start("sweep")
    kd = taught.cells()["kd", 0].run_id
    until(lambda: taught.mid_run(kd))
    node, before = taught.node_of(taught.job_of(kd)), taught.fraction(kd)
    try:
        taught.cluster.kill_node(node, report=True)
        taught.goes_on(kd, before)
        assert taught.node_of(taught.job_of(kd)) != node
    finally:
        taught.cluster.start_node(node)
    taught.quick()
    ended(sweep)
    taught.cluster.wait_for_nodes("idle", node)
    recorded_once(taught)
    same_end(taught, finished, *METHODS)

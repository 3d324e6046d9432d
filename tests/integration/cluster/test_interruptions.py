"""Jobs killed, requeued, preempted, out of time or on a node that dies: their runs resume."""

import os
import signal
import time
from pathlib import Path

from tests.support.bench import Bench, until
from tests.support.cluster_bench import METHODS, ON_SLURM, SLOW, ClusterBench, ended, recorded_once, small
from tests.support.interruptions import same_end
from tests.support.preemptions import MODES, Mode, preempt, set_mode

pytestmark = ON_SLURM
KD = "digits_net_w8 > digits_net_w4 / kd / seed 0"


def test_killed_requeued_and_signalled_to_stop(with_teacher: ClusterBench, finished: Bench) -> None:
    """SIGKILL, scontrol requeue and scancel --signal=USR2 each interrupt another pack in its middle, and no other."""
    with_teacher.sweep = small(0, 1, 2, **SLOW)
    with_teacher.slow(1)
    sweep = with_teacher.start("sweep")
    killed, requeued, last = (with_teacher.cells()["kd", seed].run_id for seed in (0, 1, 2))
    until(lambda: all(map(with_teacher.mid_run, (killed, requeued, last))))
    before = {k: with_teacher.fraction(k) for k in (killed, requeued, last)}
    # The array's last task goes by the number of the whole array, in SLURM_JOB_ID.
    with_teacher.cluster.client("scancel", "--signal=USR2", with_teacher.job_of(last))
    with_teacher.goes_on(last, before[last])
    os.kill(with_teacher.store.attempts(last)[-1]["pid"], signal.SIGKILL)
    until(lambda: with_teacher.attempts(last) == 3)
    assert [with_teacher.attempts(k) for k in (killed, requeued)] == [1, 1], "the others were not disturbed"
    os.kill(with_teacher.store.attempts(killed)[-1]["pid"], signal.SIGKILL)
    with_teacher.cluster.client("scontrol", "requeue", with_teacher.job_of(requeued))
    for run_id in (killed, requeued):
        with_teacher.goes_on(run_id, before[run_id])
    with_teacher.quick()
    ended(sweep)
    recorded_once(with_teacher)
    for seed in (0, 1, 2):
        same_end(with_teacher, finished, *METHODS, seed=seed)
    assert len(with_teacher.submissions()) == 1, "SLURM took them back without us"


def test_the_time_limit(with_teacher: ClusterBench, finished: Bench) -> None:
    """A job that SLURM signals before its time limit checkpoints and is requeued, without a sweep command.

    In a container, for which a stand-in is used, there are no commands of SLURM.
    """
    with_teacher.sweep = small(0, **SLOW)
    with_teacher.profile = {"resources": {"time_minutes": 1}, "signal_seconds": 50}
    with_teacher.put_in_container("docker://kd:1")
    with_teacher.slow(1)
    assert with_teacher.run("sweep", "--detach").returncode == 0
    kd = with_teacher.cells()["kd", 0].run_id
    until(lambda: with_teacher.attempts(kd) >= 2)
    with_teacher.cluster.client(
        "scontrol", "update", f"jobid={with_teacher.job_of(kd)}", "timelimit=10"
    )  # once is enough
    with_teacher.quick()
    until(lambda: with_teacher.store.done_ids() == set(with_teacher.plan().plan.runs))
    same_end(with_teacher, finished, *METHODS)
    assert len(with_teacher.submissions()) == 1
    assert (
        "stopped by a signal: every run is checkpointed" in Path(with_teacher.store.attempts(kd)[0]["log"]).read_text()
    )


def test_preemption_in_every_mode(with_teacher: ClusterBench, finished: Bench) -> None:
    """A preempted job resumes whatever SLURM does with it, with and without a warning.

    As many sites have it, a job gets TERM at the start of its grace time, not the signal that it asks for. If it ended
    by itself then, SLURM would call it COMPLETED; it puts itself back, whether or not a sweep watches.
    """
    cluster = with_teacher.cluster
    with_teacher.sweep = small(0, **SLOW)
    with_teacher.profile = {"partition": "low"}
    with_teacher.slow(1)
    assert with_teacher.run("sweep", "--detach").returncode == 0
    kd, started = with_teacher.cells()["kd", 0].run_id, 1
    try:
        for mode in MODES:
            until(lambda: with_teacher.mid_run(kd))
            before, job = with_teacher.fraction(kd), with_teacher.job_of(kd)
            if mode.preempt_mode == "SUSPEND":
                suspended_and_continued(with_teacher, kd, job)
                continue
            set_mode(cluster, mode)
            preempt(cluster, with_teacher.node_of(job))
            if mode == Mode("CANCEL"):  # SLURM has forgotten the job, and nobody watches
                until(lambda: with_teacher.states()[KD]["state"] == "preempted")
                assert len(with_teacher.submissions()) == 1, "SLURM took it back without us"
                with_teacher.start("sweep")
            started += 1
            with_teacher.goes_on(kd, before, started)
    finally:
        set_mode(cluster, MODES[0])
    with_teacher.quick()
    until(lambda: with_teacher.store.done_ids() == set(with_teacher.plan().plan.runs))
    recorded_once(with_teacher)
    same_end(with_teacher, finished, *METHODS)
    assert with_teacher.row(kd)["attempts"] == started == len(MODES)


def suspended_and_continued(bench: ClusterBench, run_id: str, job: str) -> None:
    """Suspend a job, as SLURM does with PreemptMode SUSPEND, and see it continue where it was."""
    attempt = bench.attempts(run_id)
    bench.cluster.client("scontrol", "suspend", job)
    until(lambda: bench.states()[KD]["state"] == "suspended")
    fraction = bench.fraction(run_id)
    time.sleep(4)
    assert bench.fraction(run_id) - fraction < 0.06, "a step that had begun has ended, and no second one"
    bench.cluster.client("scontrol", "resume", job)
    until(lambda: bench.fraction(run_id) > fraction + 0.06)
    assert (bench.attempts(run_id), bench.states()[KD]["state"]) == (attempt, "running")


def test_a_node_dies_and_comes_back(with_teacher: ClusterBench, finished: Bench) -> None:
    with_teacher.sweep = small(0, **SLOW)
    with_teacher.slow(1)
    sweep = with_teacher.start("sweep")
    kd = with_teacher.cells()["kd", 0].run_id
    until(lambda: with_teacher.mid_run(kd))
    node, before = with_teacher.node_of(with_teacher.job_of(kd)), with_teacher.fraction(kd)
    try:
        with_teacher.cluster.kill_node(node, report=True)
        with_teacher.goes_on(kd, before)
        assert with_teacher.node_of(with_teacher.job_of(kd)) != node
    finally:
        with_teacher.cluster.start_node(node)
    with_teacher.quick()
    ended(sweep)
    with_teacher.cluster.wait_for_nodes("idle", node, seconds=300)
    recorded_once(with_teacher)
    same_end(with_teacher, finished, *METHODS)

"""Jobs that share a node: one job of SLURM runs several at once, and each fails, is killed and resumes by itself."""

import os
import signal
from pathlib import Path

from tests.support.bench import SWEEP, USER_METHODS, Bench, until
from tests.support.cluster_bench import ON_SLURM, SLOW, ClusterBench
from tests.support.interruptions import same_end

pytestmark = ON_SLURM
SEEDS = range(4)


def test_four_jobs_on_one_node(with_teacher: ClusterBench, finished: Bench) -> None:
    bench = with_teacher
    bench.sweep = {
        **SWEEP,
        "methods": {"bad": {"use": f"{USER_METHODS}:Raises"}, "kd": {}, **SLOW},
        "seeds": list(SEEDS),
    }
    (bench.folder / "raise-at").write_text("1")
    bench.profile = {"resources": {"jobs_per_node": 4, "gpus_per_node": 4, "mem_gb": 7}}
    bench.slow(1)
    sweep = bench.run("sweep", "--detach")
    assert sweep.returncode == 0 and "4 packs, 4 jobs at a time, up to 4 on a node" in sweep.stderr, sweep.stderr
    trained = [bench.cells()["kd", seed].run_id for seed in SEEDS]
    killed, other = trained[:2]
    until(lambda: all(map(bench.mid_run, trained)))
    assert [note["packs"] for note in bench.submissions().values()] == [
        [[c.run_id for seed in SEEDS for c in bench.plan().plan.cells if c.seed == seed]]
    ]
    (job,) = set(map(bench.job_of, trained))
    ((cores, gpus),) = bench.jobs("%C|%b")
    assert (cores, gpus.split(":")[-1]) == ("4", "4")
    assert {row["state"] for label, row in bench.states().items() if "/ slow /" in label} == {"running"}

    before = {k: bench.fraction(k) for k in (killed, other)}
    os.kill(bench.store.attempts(killed)[-1]["pid"], signal.SIGKILL)
    bench.goes_on(killed, before[killed])
    assert {bench.attempts(k) for k in trained[1:]} == {1}, "its neighbours were not disturbed"
    bench.cluster.client("scancel", "--signal=USR2", job)
    bench.goes_on(other, before[other])
    until(lambda: bench.attempts(killed) == 3)
    assert bench.job_of(killed) == job and len(bench.submissions()) == 1
    assert {(a["minutes"], a["memory_mb"]) for k in (killed, other) for a in bench.store.attempts(k)} == {(10, 7168)}
    bench.quick()
    until(lambda: len(bench.store.done_ids()) == 1 + 2 * len(SEEDS) and not bench.jobs_left())
    for seed in SEEDS:
        if ("kd", seed) in finished.cells():
            same_end(bench, finished, "kd", seed=seed)
        assert bench.attempts(bench.cells()["bad", seed].run_id) == 1
        failure = bench.store.failure(bench.cells()["bad", seed].run_id)
        assert failure and failure.kind == "code"
    logs = [Path(bench.store.attempts(k)[-1]["log"]) for k in trained]
    assert [log.name for log in logs] == [f"{job}_{number}_log.out" for number in (1, 2, 3, 4)]
    assert all(f"SLURM gave this job GPUs ({gpu})" in log.read_text() for gpu, log in enumerate(logs))
    assert bench.states_of(job) >= {"COMPLETED"}

"""Sites' own rules: limits on jobs, small arrays, tracked workloads, GPUs, accounting that is away."""

import os
from collections import Counter
from pathlib import Path
from unittest import mock

from harness.store import json_files
from slurm import commands
from slurm.loopback import Loopback
from slurm.loopback.config import ACCOUNT
from tests.support.bench import SELDOM, SWEEP, until
from tests.support.cli import CommandResult
from tests.support.cluster_bench import ARRAY, ON_SLURM, ClusterBench, ended, recorded_once, small

pytestmark = ON_SLURM

QOS = "few"
LIMITS = [  # whose, which, and SLURM's name of it
    (("user", commands.user()), "MaxSubmitJobs", "AssocMaxSubmitJobLimit"),
    (("account", ACCOUNT), "GrpSubmitJobs", "AssocGrpSubmitJobsLimit"),
    (("account", "root"), "GrpSubmitJobs", "AssocGrpSubmitJobsLimit"),
    (("qos", QOS), "MaxSubmitJobsPerUser", "QOSMaxSubmitJobPerUserLimit"),
    (("qos", QOS), "GrpSubmitJobs", "QOSGrpSubmitJobsLimit"),
    (("qos", QOS), "MaxSubmitJobsPerAccount", "MaxSubmitJobsPerAccount"),
]


def set_limit(cluster: Loopback, whose: tuple[str, str], limit: str, jobs: int) -> None:
    cluster.client("sacctmgr", "-i", "modify", *whose, "set", f"{limit}={jobs}")


def with_qos(cluster: Loopback) -> None:
    if QOS not in cluster.client("sacctmgr", "-nP", "show", "qos", "format=name").split():
        cluster.client("sacctmgr", "-i", "add", "qos", QOS)
        cluster.client("sacctmgr", "-i", "modify", "user", commands.user(), "set", f"qos+={QOS}")


def sweep(bench: ClusterBench) -> CommandResult:
    json_files.print_note.cache_clear()  # as in a new process
    with mock.patch.dict(os.environ, bench._process_options()["env"]):
        return bench.call("sweep", "--detach")


def test_what_fits_a_limit_is_submitted(bench: ClusterBench) -> None:
    """Whoever has the limit, and in small arrays. Another job of the account counts too. All are held: none trains."""
    with_qos(bench.cluster)
    bench.cluster.configure(MaxArraySize="3")
    bench.profile, bench.sbatch = {"qos": QOS}, {"hold": True}
    bench.sweep = {**SWEEP, "methods": {"student": {}}, "seeds": [0, 1, 2, 3, 4]}
    for submitted, (whose, limit, name) in enumerate(LIMITS, 1):
        try:
            other = bench.cluster.client("sbatch", "--parsable", "--hold", f"--qos={QOS}", "--wrap=true").strip()
            set_limit(bench.cluster, whose, limit, 5)
            result = sweep(bench)
            sizes = sorted(len(note["packs"]) for note in bench.submissions().values())
            assert result.code == 0 and "1 run not submitted yet" in result.err, (whose, limit, result)
            assert f"note: SLURM takes no more jobs now: {name}: Job violates" in result.err
            assert "sbatch: error" not in result.err
            assert sizes == [1] * submitted + [3] * submitted and len(bench.jobs_left()) == 4
            assert len(list(bench.store.jobs.iterdir())) == 2 * submitted, "nothing is left of refused arrays"
        finally:
            set_limit(bench.cluster, whose, limit, -1)
            bench.cluster.client("scancel", other, *bench.jobs_left())
            until(lambda: not bench.jobs("%i"))
    bench.cluster.configure(MaxArraySize=str(ARRAY))


def test_a_limit_below_one_job_is_told(bench: ClusterBench) -> None:
    with_qos(bench.cluster)
    bench.profile, bench.sweep = {"qos": QOS}, {**SWEEP, "methods": {"student": {}}, "seeds": [0, 1]}
    try:
        set_limit(bench.cluster, ("qos", QOS), "MaxSubmitJobsPerUser", 0)
        result = sweep(bench)
    finally:
        set_limit(bench.cluster, ("qos", QOS), "MaxSubmitJobsPerUser", -1)
    assert result.code == 2
    last = result.err.splitlines()[-1]
    assert last.startswith("error: --cluster ") and "sbatch refused: QOSMaxSubmitJobPerUserLimit: Job violates" in last


def test_a_sweep_under_all_rules_at_once(bench: ClusterBench) -> None:
    """Few jobs, no arrays, GPUs that torch cannot use, no accounting, a teacher's job that is gone when its students
    start (SLURM starts them after any end of it), and an answer of sbatch that gets lost."""
    with_qos(bench.cluster)
    bench.cluster.client("sacctmgr", "-i", "add", "user", commands.user(), "wckey=kd")
    bench.checkpoint_seconds = SELDOM
    bench.profile = {"qos": QOS, "resources": {"gpus_per_node": 1}}
    bench.sbatch = {"wckey": "kd", "hold": True}
    bench.sweep = {
        **small(0),
        "recipe": {**SWEEP["recipe"], "epochs": 1},
        "pairs": [
            {"teacher": f"digits_net_{t}", "student": f"digits_net_{s}"} for t, s in (("w8", "w4"), ("w4", "w8"))
        ],
    }
    try:
        set_limit(bench.cluster, ("qos", QOS), "MaxSubmitJobsPerUser", 3)
        bench.cluster.configure(MaxArraySize="1")
        bench.cluster.stop_accounting()
        assert "2 runs not submitted yet" in sweep(bench).err
        (waits,) = (wait for (wait,) in bench.jobs("%E") if wait.startswith("afterany:"))
        teacher = waits.removeprefix("afterany:").partition("(")[0].removesuffix("_*")
        bench.cluster.client("scancel", teacher)
        for (job,) in bench.jobs("%i"):
            bench.cluster.client("scontrol", "release", job)
        until(lambda: not bench.jobs_left())
        assert len(bench.store.done_ids()) == 1 and not bench.store.failed_ids()
        bench.sbatch = {"wckey": "kd"}
        bench.wrap("sbatch", '"$REAL" "$@"; echo "sbatch: error: Socket timed out on send/recv operation" >&2; exit 1')
        lost = sweep(bench)
        assert lost.code == 2 and "sbatch refused: Socket timed out" in lost.err.splitlines()[-1]
        (bench.folder / "bin/sbatch").unlink()
        ended(bench.start("sweep"))
    finally:
        bench.cluster.start_accounting()
        bench.cluster.configure(MaxArraySize=str(ARRAY))
        set_limit(bench.cluster, ("qos", QOS), "MaxSubmitJobsPerUser", -1)
    recorded_once(bench)
    notes = bench.submissions()
    assert [len(note["packs"]) for note in notes.values()] == [1] * 6, "the first teacher and its students twice"
    log = Path(bench.store.attempts(next(iter(bench.plan().plan.runs)))[-1]["log"]).read_text()
    assert "warning: SLURM gave this job GPUs (0), but torch cannot use them: training on the CPU" in log
    # Of a pending job that is cancelled while the accounting is away it never hears.
    ran = {name for name, note in notes.items() if note["job_id"] != teacher}
    until(lambda: accounted(bench, *ran) == Counter({(name, "kd"): 1 for name in ran}))


def accounted(bench: ClusterBench, *names: str) -> Counter[tuple[str, ...]]:
    """Return how many jobs of a name and a workload the accounting knows."""
    rows = bench.cluster.client("sacct", "-nPX", "--duplicates", "--format=JobName,WCKey")
    return Counter(row for line in rows.splitlines() if (row := tuple(line.split("|")))[0] in names)

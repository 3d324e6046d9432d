"""Sweeps on a real SLURM, through the command line: what it is asked for, and what becomes of runs when jobs die."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from slurm import commands
from slurm.loopback import Loopback, packages
from tests.integration.conftest import METHODS, MINE, SWEEP, Bench, teacher_run
from tests.integration.conftest import until as wait_until
from tests.integration.test_errors import FILLS, tmpfs
from tests.integration.test_ranks import as_one_process
from tests.integration.test_resume import same_end

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(packages.missing()), reason=f"not installed: {', '.join(packages.missing())}; {packages.APT}"
    ),
]
SLOW = {"slow": {"use": f"{MINE}:Sleeps"}}
ARRAY = 8  # the most tasks of one array
COMMANDS = ("sbatch", "squeue", "sacct", "sacctmgr", "scontrol", "scancel")


until = partial(wait_until, seconds=240)  # SLURM itself waits for half a minute here and there


@pytest.fixture(scope="module")
def cluster() -> Iterator[Loopback]:
    base = Path(tempfile.mkdtemp(prefix="kd-"))  # short, as unix sockets want it
    try:
        with Loopback.up(base / "c", nodes=4, extra={"MaxArraySize": str(ARRAY)}) as running:
            yield running
    finally:
        shutil.rmtree(base, ignore_errors=True)


@dataclass
class ClusterBench(Bench):
    """A bench whose sweeps run on the loopback cluster, in jobs that work in its folder and see its file ``slow``."""

    cluster: Loopback = field(kw_only=True)
    profile: dict[str, Any] = field(default_factory=dict)
    sbatch: dict[str, Any] = field(default_factory=dict)  # long options

    @property
    def calls_file(self) -> Path:
        return self.folder / "calls"

    def _how(self) -> dict[str, Any]:
        how = super()._how()
        path = f"{self.folder / 'bin'}{os.pathsep}{packages.search_path()}"
        return {**how, "env": {**how["env"], **self.cluster.env, "PATH": path}}

    def command(self, name: str, *args: str, file: str | None = "sweep.yaml") -> list[str]:
        resources = {"time_minutes": 10, "cpus_per_task": 1, "mem_gb": 1, **self.profile.get("resources", {})}
        options = {"chdir": str(self.folder), **self.sbatch}
        given = {k: v for k, v in options.items() if v is not None}
        whole = {"signal_seconds": 20, "poll_seconds": 0.5, **self.profile, "resources": resources, "sbatch": given}
        (self.folder / "my.yaml").write_text(yaml.safe_dump(whole))
        return super().command(name, *args, *(["--cluster", "my.yaml"] if name == "sweep" else []), file=file)

    def wrap(self, program: str, script: str) -> None:
        """Puts a script in a SLURM command's place; ``$REAL`` is the command."""
        path = self.folder / "bin" / program
        path.parent.mkdir(exist_ok=True)
        real = shutil.which(program, path=packages.search_path())
        path.write_text(f"#!/bin/bash\nREAL={shlex.quote(str(real))}\n{script}\n")
        path.chmod(0o755)

    def count_calls(self) -> None:
        """From now on every SLURM command that is called outside jobs leaves a line in ``calls_file``."""
        for program in COMMANDS:
            note = f"echo {program} >> {shlex.quote(str(self.calls_file))}"
            self.wrap(program, f'[ -n "$SLURM_JOB_ID" ] || {note}\nexec "$REAL" "$@"')

    def calls(self) -> Counter[str]:
        return Counter(self.calls_file.read_text().split()) if self.calls_file.exists() else Counter()

    def clean_up(self) -> None:
        super().clean_up()
        if left := [job for (job,) in self.jobs("%i")]:  # the cluster is ours alone
            self.cluster.client("scancel", *left)
        until(lambda: not self.jobs("%i"))

    def jobs(self, columns: str) -> list[list[str]]:
        text = self.cluster.client("squeue", "--noheader", "--array", f"--format={columns}")
        return [line.split("|") for line in text.splitlines()]

    def jobs_left(self) -> list[str]:
        mine = self.submissions()
        return [job for job, name in self.jobs("%i|%j") if name in mine]

    def submissions(self) -> dict[str, dict[str, Any]]:
        """Name -> what was noted of it."""
        found = (json.loads(p.read_text()) for p in self.store.submission("x").parent.glob("*.json"))
        return {note["name"]: note for note in found}

    def job_of(self, run_id: str) -> str:
        """The pending or running job (12, 12_3) that is to train a run."""
        live = {job for (job,) in self.jobs("%i")}
        found = [
            job
            for note in self.submissions().values()
            for i, pack in enumerate(note["packs"])
            if run_id in pack and (job := f"{note['job_id']}_{i}" if len(note["packs"]) > 1 else note["job_id"]) in live
        ]
        assert len(found) == 1, found
        return found[0]

    def node_of(self, job: str) -> str:
        return self.cluster.client("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()

    def release(self) -> None:
        """Lets jobs go that were submitted with ``hold``."""
        self.sbatch = {k: v for k, v in self.sbatch.items() if k != "hold"}
        for note in self.submissions().values():
            self.cluster.client("scontrol", "release", note["job_id"])

    def mid_run(self, run_id: str) -> bool:
        """In training, with a checkpoint behind it."""
        running = self.store.is_running(run_id) and self.store.progress(run_id).get("fraction", 0) > 0.02
        return running and any(self.store.checkpoints(run_id).glob("epoch-*"))

    def attempts(self, run_id: str) -> int:
        return len(self.store.attempts(run_id))

    def fraction(self, run_id: str) -> float:
        return self.store.progress(run_id)["fraction"]

    def goes_on(self, run_id: str, before: float) -> None:
        """Waits for the second attempt's first step, which comes after what was done before."""
        until(lambda: self.attempts(run_id) == 2)
        until(lambda: self.store.progress(run_id)["at"] > self.store.attempts(run_id)[1]["at"])
        assert self.fraction(run_id) >= before > 0

    def slow(self, seconds: float) -> None:
        (self.folder / "slow").write_text(str(seconds))

    def quick(self) -> None:
        (self.folder / "slow").unlink()


@pytest.fixture
def bench(tmp_path: Path, cluster: Loopback) -> Iterator[ClusterBench]:
    bench = ClusterBench(tmp_path, cluster=cluster)
    yield bench
    bench.clean_up()


def small(*seeds: int, **more: object) -> dict[str, Any]:
    """The small sweep with these seeds and further methods."""
    return {**SWEEP, "methods": {**SWEEP["methods"], **more}, "seeds": list(seeds)}


def ended(process: subprocess.Popen[str]) -> str:
    """What a command said that ended well."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out + err


@pytest.fixture
def taught(bench: ClusterBench, finished: Bench) -> ClusterBench:
    """A store in which the teacher is trained."""
    bench.take(finished, teacher_run(finished))
    return bench


def recorded_once(bench: Bench) -> None:
    """Every run of the plan has a record, and there is no other."""
    assert bench.store.done_ids() == set(bench.plan().plan.runs)
    assert not bench.store.failed_ids()
    assert len(list(bench.store.records.iterdir())) == len(bench.plan().plan.runs)


# what SLURM is asked for -----------------------------------------------------------------------------------------


def test_the_bits_of_a_local_run_and_every_record_once(bench: ClusterBench, finished: Bench) -> None:
    bench.sweep = small(0, 1)
    done = bench.run("sweep")
    assert done.returncode == 0, done.stderr
    recorded_once(bench)
    for seed in (0, 1):
        same_end(bench, finished, *METHODS, seed=seed)
    assert all(bench.attempts(k) == 1 for k in bench.plan().plan.runs)
    first, second = sorted(bench.submissions().values(), key=lambda note: int(note["job_id"]))
    assert [len(note["packs"]) for note in (first, second)] == [1, 2], "the teacher; an array of its students"
    assert "3 packs, 3 at once" in done.stderr


def test_few_arrays_and_few_calls_however_many_runs(bench: ClusterBench) -> None:
    """Two teachers in an array, and an array per teacher waited for; cut to what the cluster takes."""
    bench.count_calls()
    bench.sbatch = {"hold": True}
    pairs = [("w8", "w4"), ("w16", "w4"), ("w16", "w8")]
    seen = {}
    for seeds in (1, 4):
        bench.sweep = {
            **SWEEP,
            "pairs": [{"teacher": f"digits_net_{t}", "student": f"digits_net_{s}"} for t, s in pairs],
            "seeds": list(range(seeds)),
        }
        done = bench.run("sweep", "--detach")
        assert done.returncode == 0, done.stderr
        bench.run("status", "--json")
        seen[seeds] = bench.calls()
        plan, notes = bench.plan().plan, bench.submissions()
        teachers = {k for c in plan.cells if (k := c.teacher_run)}
        sizes: Counter[str] = Counter()
        waits: dict[str, str] = {}
        for name, wait in bench.jobs("%j|%E"):
            if name in notes:
                sizes[name] += 1
                waits[name] = wait
        assert sorted(sizes.values()) == [seeds, 2, 2 * seeds] or sorted(sizes.values()) == [2, seeds, 2 * seeds]
        for name, note in notes.items():
            runs = {k for pack in note["packs"] for k in pack}
            assert (waits[name] == "(null)") == (runs <= teachers)
            assert runs <= teachers or waits[name].startswith("afterany:")
        assert bench.run("status", "--cancel").returncode == 0
        until(lambda: not bench.jobs_left())
        shutil.rmtree(bench.store.root)
        bench.calls_file.unlink()
    assert seen[1] == seen[4]
    assert seen[1]["sbatch"] == 3 and sum(seen[1].values()) <= 8, seen[1]

    bench.sweep = {**SWEEP, "methods": {"student": {}}, "seeds": list(range(ARRAY + 3))}
    assert bench.run("sweep", "--detach").returncode == 0
    assert sorted(len(note["packs"]) for note in bench.submissions().values()) == [3, ARRAY]
    assert len({job for job, name in bench.jobs("%i|%j") if name in bench.submissions()}) == ARRAY + 3


def test_resources_by_size_and_what_starts_python(bench: ClusterBench) -> None:
    """As SLURM has them; a job's Python is started by the profile's command (a container's, say) after its setup."""
    script = bench.folder / "container"
    script.write_text(f'#!/bin/sh\necho "$LOADED" >> {bench.folder}/contained\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    bench.profile = {
        "by_size": [{"student": "digits_net_w8", "resources": {"time_minutes": 7, "mem_gb": 1.5}}],
        "setup": ["export LOADED=cuda"],
        "python": str(script),
    }
    bench.sweep = {**SWEEP, "methods": {"kd": {}}, "seeds": [0]}
    bench.sbatch = {"hold": True}
    teacher, kd = teacher_run(bench), bench.cells()["kd", 0].run_id
    assert bench.run("sweep", "--detach").returncode == 0
    asked = {job: (limit, memory) for job, limit, memory in bench.jobs("%i|%l|%m")}
    assert (asked[bench.job_of(teacher)], asked[bench.job_of(kd)]) == (("7:00", "1.50G"), ("10:00", "1G"))
    bench.release()
    until(lambda: bench.store.done_ids() == {teacher, kd})
    assert (bench.folder / "contained").read_text().split() == ["cuda"] * 2


def test_no_more_jobs_than_the_user_may_submit(bench: ClusterBench, finished: Bench) -> None:
    """What there is no room for is submitted as others end."""
    name = commands.user()
    limit = ("-i", "modify", "user", name, "set")
    bench.sweep = {**SWEEP, "methods": {"student": {}}, "seeds": [0, 1, 2]}
    try:
        bench.cluster.client("sacctmgr", *limit, "maxsubmitjobs=2")
        until(lambda: "MaxSubmitJobs=2" in bench.cluster.client("scontrol", "show", "assoc_mgr", "flags=assoc"))
        done = bench.run("sweep")
    finally:
        bench.cluster.client("sacctmgr", *limit, "maxsubmitjobs=-1")
    assert done.returncode == 0, done.stderr
    assert "1 runs wait for room" in done.stderr
    recorded_once(bench)
    for seed in (0, 1, 2):
        same_end(bench, finished, "student", seed=seed)


# interruptions ---------------------------------------------------------------------------------------------------


def test_killed_requeued_and_told_to_stop(taught: ClusterBench, finished: Bench) -> None:
    """SIGKILL of a job's process, scontrol requeue, scancel --signal=USR2, each in the middle of another pack."""
    taught.sweep = small(0, 1, 2, **SLOW)
    taught.slow(1)
    sweep = taught.start("sweep")
    killed, requeued, told = (taught.cells()["kd", seed].run_id for seed in (0, 1, 2))
    until(lambda: all(map(taught.mid_run, (killed, requeued, told))))
    before = {k: taught.fraction(k) for k in (killed, requeued, told)}
    os.kill(taught.store.attempts(killed)[-1]["pid"], signal.SIGKILL)
    taught.cluster.client("scontrol", "requeue", taught.job_of(requeued))
    taught.cluster.client("scancel", "--signal=USR2", taught.job_of(told))
    for run_id, fraction in before.items():
        taught.goes_on(run_id, fraction)
    taught.quick()
    ended(sweep)
    recorded_once(taught)
    for seed in (0, 1, 2):
        same_end(taught, finished, *METHODS, seed=seed)
    assert len(taught.submissions()) == 1, "SLURM took them back without us"


def test_the_time_limit(taught: ClusterBench, finished: Bench) -> None:
    """Told before it, a job checkpoints and goes back into the queue; nobody is watching."""
    taught.sweep = small(0, **SLOW)
    taught.profile = {"resources": {"time_minutes": 1}, "signal_seconds": 50}
    taught.slow(1)
    assert taught.run("sweep", "--detach").returncode == 0
    kd = taught.cells()["kd", 0].run_id
    until(lambda: taught.attempts(kd) >= 2)
    taught.quick()
    until(lambda: taught.store.done_ids() == set(taught.plan().plan.runs))
    same_end(taught, finished, *METHODS)
    assert len(taught.submissions()) == 1
    assert "told to stop: every run is checkpointed" in Path(taught.store.attempts(kd)[0]["log"]).read_text()


@pytest.mark.parametrize("partition", ["low", "lowcancel"])
def test_preemption(taught: ClusterBench, finished: Bench, partition: str) -> None:
    """With PreemptMode REQUEUE and CANCEL, after a warning."""
    taught.sweep = small(0, **SLOW)
    taught.profile = {"partition": partition}
    taught.slow(1)
    sweep = taught.start("sweep")
    kd = taught.cells()["kd", 0].run_id
    until(lambda: taught.mid_run(kd))
    before = taught.fraction(kd)
    everything = ("--partition=high", "--nodes=4", "--exclusive", "--output=/dev/null")
    taught.cluster.client("sbatch", "--wait", *everything, "--wrap=true", seconds=120)
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
        taught.cluster.kill_node(node, tell=True)
        taught.goes_on(kd, before)
        assert taught.node_of(taught.job_of(kd)) != node
    finally:
        taught.cluster.start_node(node)
    taught.quick()
    ended(sweep)
    taught.cluster.wait_for_nodes("idle", node)
    recorded_once(taught)
    same_end(taught, finished, *METHODS)


# failures --------------------------------------------------------------------------------------------------------


def test_a_failing_teacher_fails_its_students_and_can_be_tried_again(bench: ClusterBench, finished: Bench) -> None:
    bench.sweep = {**small(0), "methods": {m: SWEEP["methods"][m] for m in ("student", "kd")}}
    bench.sbatch = {"hold": True}
    teacher, kd = teacher_run(bench), bench.cells()["kd", 0].run_id
    assert bench.run("sweep", "--detach").returncode == 0
    (bench.store.run(teacher) / "science.json").write_text("{")
    bench.release()
    until(lambda: kd in bench.store.failed_ids())
    done = bench.run("sweep")
    assert done.returncode == 1, done.stderr
    assert "2 failed" in done.stderr
    until(lambda: not bench.jobs_left())
    failure = bench.store.failure(kd)
    assert failure is not None and f"its teacher's run {teacher} failed" in failure.cause
    assert bench.attempts(kd) == 1
    assert "2 failed, 2 causes" in bench.run("status", "--failures").stdout

    again = bench.run("sweep", "--retry-failed")
    assert again.returncode == 0, again.stderr
    recorded_once(bench)
    same_end(bench, finished, "student", "kd")


def test_a_code_error_is_not_retried_until_asked_for(taught: ClusterBench, finished: Bench) -> None:
    taught.sweep = small(0, bad={"use": f"{MINE}:Raises"})
    (taught.folder / "raise-at").write_text("3")
    bad = taught.cells()["bad", 0].run_id
    done = taught.run("sweep")
    assert done.returncode == 1 and "this method has a bug" in done.stderr, done.stderr
    same_end(taught, finished, *METHODS)
    assert taught.attempts(bad) == 1 and len(taught.submissions()) == 1
    assert taught.states()[taught.plan().plan.runs[bad].label]["kind"] == "code"
    assert taught.run("sweep").returncode == 1
    assert len(taught.submissions()) == 1
    (taught.folder / "raise-at").unlink()
    again = taught.run("sweep", "--retry-failed")
    assert again.returncode == 0, again.stderr
    recorded_once(taught)


def test_a_run_that_is_killed_again_and_again_is_given_up(taught: ClusterBench, finished: Bench) -> None:
    taught.sweep = small(0, **SLOW)
    taught.profile = {"max_attempts": 2}
    taught.slow(1)
    assert taught.run("sweep", "--detach").returncode == 0
    kd = taught.cells()["kd", 0].run_id
    for attempt in (1, 2):
        until(lambda n=attempt: taught.attempts(kd) == n and taught.mid_run(kd))  # type: ignore[misc]
        os.kill(taught.store.attempts(kd)[-1]["pid"], signal.SIGKILL)
    until(lambda: kd in taught.store.failed_ids())
    failure = taught.store.failure(kd)
    assert failure is not None and (failure.kind, failure.cause) == ("killed", "no result after 2 attempts")
    assert "Killed" in failure.details
    taught.quick()
    again = taught.run("sweep", "--retry-failed")
    assert again.returncode == 0, again.stderr
    recorded_once(taught)
    same_end(taught, finished, *METHODS)


@pytest.mark.parametrize("end", ["timed out", "preempted"])
def test_status_tells_how_a_job_ended(bench: ClusterBench, end: str) -> None:
    """From the store, one squeue and one sacct; the step takes so long that nothing can be checkpointed."""
    bench.sweep = {**SWEEP, "methods": SLOW, "seeds": [0, 1]}
    limit = {"resources": {"time_minutes": 1}, "signal_seconds": 1}
    bench.profile = limit if end == "timed out" else {"partition": "lowcancel"}
    bench.slow(600)
    runs = {k: run.label for k, run in bench.plan().plan.runs.items()}
    assert bench.run("sweep", "--detach").returncode == 0
    until(lambda: all(map(bench.store.is_running, runs)))
    if end == "preempted":
        everything = ("--partition=high", "--nodes=4", "--exclusive", "--output=/dev/null")
        bench.cluster.client("sbatch", "--wait", *everything, "--wrap=true", seconds=120)
    until(lambda: not bench.jobs_left())
    until(lambda: "to do" not in {row["state"] for row in bench.states().values()})  # the accounting lags
    bench.count_calls()
    said = bench.run("status").stdout.splitlines()
    assert bench.calls() == {"squeue": 1, "sacct": 1}
    assert said[-1] == f"2 {end}", said
    assert all(line.startswith(f"{line[:16]}  {end} {runs[line[:16]]}  job ") for line in said[:-1]), said
    bench.quick()
    bench.profile = {}
    ended(bench.start("sweep"))
    recorded_once(bench)
    assert all(bench.attempts(k) == 2 == bench.row(k)["attempts"] for k in runs)


@pytest.mark.parametrize("left", [9 << 10, 0], ids=["weights", "everything"])
def test_a_full_results_disk(bench: ClusterBench, left: int) -> None:
    """No room for the weights is a failure with that cause; no room even to note it is told where it can be told."""
    (bench.folder / "filling.py").write_text(FILLS)
    (bench.folder / "fill").touch()
    bench.sweep = {**SWEEP, "methods": {"fills": {"use": "filling:Fills", "params": {"left": left}}}, "seeds": [0]}
    with tmpfs(bench.folder / "results", "size=8m"):
        done = bench.run("sweep")
        assert not bench.store.done_ids() and not list(bench.store.root.rglob("*.tmp"))
        if left:
            assert done.returncode in (1, 2), done.stderr  # 2: no room for the table either
            assert {row["kind"] for row in bench.states().values()} == {"disk"}
            said = bench.run("status", "--failures").stdout
            assert said.startswith("1 failed, 1 cause\n") and "no space left on the disk (writing student." in said
        else:
            assert done.returncode == 2 and "no space left" in done.stderr.splitlines()[-1], done.stderr
        until(lambda: not bench.jobs_left())
        (bench.folder / "fill").unlink()
        (bench.store.root / "filler").unlink()
        ended(bench.start("sweep", "--retry-failed"))
        assert bench.store.done_ids() == {row["run_id"] for row in bench.states().values()}
        assert len(list(bench.store.records.iterdir())) == 1 and not bench.store.failed_ids()


@pytest.mark.parametrize("mem_gb", [0.2, 0.45], ids=["before-training", "in-training"])
def test_out_of_memory_is_told_and_soon_given_up(bench: ClusterBench, mem_gb: float) -> None:
    bench.profile = {"resources": {"mem_gb": mem_gb}}
    bench.sweep = {**SWEEP, "methods": {"student": {}}, "seeds": [0]}
    done = bench.run("sweep")
    assert done.returncode == 1, done.stderr
    (failure,) = map(bench.store.failure, bench.plan().plan.runs)
    assert failure and failure.kind == "killed"
    assert failure.cause == "no result after 3 attempts, out of memory: raise `mem_gb` in the profile"
    assert failure.cause in done.stderr and "memory" in failure.details


# submitters ------------------------------------------------------------------------------------------------------


def test_two_sweeps_at_once_submit_once(taught: ClusterBench, finished: Bench) -> None:
    taught.sweep = small(0, 1)
    taught.count_calls()
    both = [taught.start("sweep"), taught.start("sweep")]
    for process in both:
        ended(process)
    assert taught.calls()["sbatch"] == len(taught.submissions()) == 1
    recorded_once(taught)
    assert all(taught.attempts(c.run_id) == 1 for c in taught.cells().values())
    same_end(taught, finished, *METHODS)


def test_jobs_of_a_submitter_that_died_are_adopted(taught: ClusterBench, finished: Bench) -> None:
    taught.sweep = small(0, 1)
    taught.wrap("sbatch", '"$REAL" "$@"; kill -9 $PPID')
    assert taught.run("sweep", "--detach").returncode == -signal.SIGKILL
    (note,) = taught.submissions().values()
    assert note["job_id"] is None
    assert [name for _, name in taught.jobs("%i|%j")] == [note["name"]] * 2
    taught.count_calls()
    ended(taught.start("sweep"))
    assert taught.calls()["sbatch"] == 0 and len(taught.submissions()) == 1
    recorded_once(taught)
    assert all(taught.attempts(c.run_id) == 1 for c in taught.cells().values())
    same_end(taught, finished, *METHODS)


def test_detached_shown_cancelled_and_taken_up_again_without_accounting(taught: ClusterBench, finished: Bench) -> None:
    taught.sweep = small(0, **SLOW)
    taught.slow(1)
    taught.sbatch = {"hold": True}
    kd = taught.cells()["kd", 0]
    label = taught.plan().plan.runs[kd.run_id].label
    try:
        taught.cluster.stop_accounting()
        assert "detached" in ended(taught.start("sweep", "--detach"))
        pending = taught.states()[label]
        assert pending["state"] == "pending" and pending["remark"].startswith("JobHeldUser"), pending
        taught.release()
        until(lambda: taught.mid_run(kd.run_id))
        running = taught.states()[label]
        assert (running["state"], running["epoch"], running["epochs"]) == ("running", 0, 3)
        text = taught.run("status").stdout.splitlines()
        assert "epoch 1/3" in next(line for line in text if line.startswith(kd.run_id))
        assert text[-1] == f"{len(METHODS) + 1} running, 1 done"
        assert "ended 1 queue" in taught.run("status", "--cancel").stderr
        until(lambda: not taught.jobs_left())
        assert taught.states()[label]["state"] == "to do", "nothing is known of jobs that have ended"
    finally:
        taught.cluster.start_accounting()
    until(lambda: taught.states()[label]["state"] == "cancelled")
    assert taught.states()[label]["requeued"] == 1
    taught.quick()
    ended(taught.start("sweep"))
    recorded_once(taught)
    same_end(taught, finished, *METHODS)
    assert taught.attempts(kd.run_id) == 2


METHOD = """
from pathlib import Path
from typing import ClassVar

import harness
from methods.base import Distiller
from my_helper import SCALE


class Mine(Distiller):
    needs_teacher: ClassVar[bool] = False
    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "old": 0.5}

    def forward(self, batch, student, teacher):
        Path(__file__).with_name("harness-is-in").write_text(harness.__file__)
        return {"old": SCALE * student.logits.square().mean()}
"""


def test_queued_jobs_run_the_code_of_their_submission(bench: ClusterBench) -> None:
    """A user's method beside the sweep file, changed while its run is pending. Its own helper is found where it is."""
    mine = bench.folder / "mine.py"
    mine.write_text(METHOD)
    (bench.folder / "my_helper.py").write_text("SCALE = 1.0\n")
    bench.sweep = {**SWEEP, "methods": {"mine": {"use": "mine:Mine"}}, "seeds": [0]}
    bench.sbatch = {"hold": True, "chdir": None}
    done = bench.run("sweep", "--detach")
    assert done.returncode == 0, done.stderr
    ((run_id,),) = (pack for note in bench.submissions().values() for pack in note["packs"])
    mine.write_text(METHOD.replace('"old"', '"new"'))
    bench.release()
    until(lambda: run_id in bench.store.done_ids() | bench.store.failed_ids())
    assert not bench.store.failure(run_id)
    row = bench.row(run_id)
    names = {c["name"] for c in row["curves"]}
    assert "train_old" in names and "train_new" not in names
    (where,) = (bench.store.root / "code").glob("*/harness-is-in")
    assert where.read_text() == str(where.parent / "harness" / "__init__.py"), "the copy, not the checkout"
    assert json.loads(row["science"])["method"]["weights"] == {"ce": 1.0, "old": 0.5}
    changed = json.loads(bench.run("sweep", "--plan", "--json").stdout)
    assert (changed["to_do"], changed["done"]) == (1, 0), "the changed method is another run"


# several processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes, tasks", [(2, 1), (1, 2)])
def test_processes_share_a_run(taught: ClusterBench, finished: Bench, nodes: int, tasks: int) -> None:
    """Two seeds' packs at once, so that jobs share nodes; as close to a single process as test_ranks says."""
    taught.profile = {"resources": {"nodes": nodes, "tasks_per_node": tasks, "mem_gb": tasks}}
    taught.sweep = small(0, 1)
    done = taught.run("sweep")
    assert done.returncode == 0, done.stderr
    recorded_once(taught)
    for (method, seed), cell in taught.cells().items():
        row = taught.row(cell.run_id)
        assert row["processes"] == nodes * tasks and row["attempts"] == 1
        as_one_process(row, finished.row(cell.run_id), f"{method} {seed}")


@pytest.mark.parametrize("told", ["USR2", "KILL"])
def test_processes_stop_together_and_go_on_together(bench: ClusterBench, told: str) -> None:
    bench.profile = {"resources": {"nodes": 2}}
    bench.sweep = {**SWEEP, "methods": SLOW, "seeds": [0]}
    bench.slow(0.2)
    sweep = bench.start("sweep")
    run_id = bench.cells()["slow", 0].run_id
    until(lambda: bench.mid_run(run_id))
    before = bench.fraction(run_id)
    if told == "USR2":
        bench.cluster.client("scancel", "--signal=USR2", bench.job_of(run_id))
    else:
        second = next(pid for pid in pids_of(bench.store.root) if environment(pid).get("SLURM_PROCID") == "1")
        os.kill(second, signal.SIGKILL)
    bench.goes_on(run_id, before)
    bench.quick()
    ended(sweep)
    recorded_once(bench)


def pids_of(root: Path) -> list[int]:
    """Processes that submitit has started for a store."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if b"submitit.core._submit" in (line := entry.read_bytes()) and str(root).encode() in line:
                found.append(int(entry.parent.name))
    return found


def environment(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)

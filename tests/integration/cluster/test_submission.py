"""Submission to SLURM by one sweep or several at once: the resources requested and the jobs that run."""

import json
import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from unittest import mock

from slurm import commands
from tests.support.bench import SELDOM, SWEEP, Bench, teacher_run, until
from tests.support.cluster_bench import ARRAY, METHODS, ON_SLURM, SLOW, ClusterBench, ended, recorded_once, small
from tests.support.interruptions import same_end

pytestmark = ON_SLURM


def test_the_bits_of_a_local_run_and_every_record_once(bench: ClusterBench, finished: Bench) -> None:
    bench.sweep, bench.checkpoint_seconds = {**SWEEP, "seeds": [0, 1]}, SELDOM
    result = bench.run("sweep")
    assert result.returncode == 0, result.stderr
    recorded_once(bench)
    for seed in (0, 1):
        same_end(bench, finished, *SWEEP["methods"], seed=seed)
    assert all(bench.attempts(k) == 1 for k in bench.plan().plan.runs)
    first, second = sorted(bench.submissions().values(), key=lambda note: int(note["job_id"]))
    assert [len(note["packs"]) for note in (first, second)] == [1, 2], "the teacher; an array of its students"
    assert "3 packs, 3 jobs at a time" in result.stderr
    until(lambda: bench.efficiency()["classes"][-1]["finished"] == 2)  # accounting learns of an end a moment later
    teacher, students = bench.efficiency()["classes"]
    assert (teacher["source"], students["source"], students["starts"]) == ("accounting", "accounting", 2)
    asked = {"time_minutes": 10, "mem_gb": 1.0, "nodes": 1, "processes": 1, "cpus_per_task": 1, "gpus": 0}
    assert students["asked"] == asked and students["ends"] == {}
    # Of a short job SLURM may know neither; the record knows its memory. The warm Python's time is not the job's.
    assert 0.1 < students["used"]["most_gb"] < 10 and (students["used"]["mean_cores"] or 0) < 1.5
    seconds = [bench.row(k)["cost_total_s"] for k in bench.plan().plan.runs]
    assert students["used"]["most_minutes"] * 60 > max(seconds) and students["advice"] is None, "two are too few"


def test_several_seeds_in_one_task(bench: ClusterBench, finished: Bench) -> None:
    """The profile states how many, and the command's number wins. The jobs may run in either of two partitions."""
    bench.sweep, bench.checkpoint_seconds = small(0, 1, 2), SELDOM
    bench.profile = {"partition": ["main", "high"], "resources": {"packs_per_job": 2}}
    assert "4 packs in 2 jobs, 2 jobs at a time" in bench.run("sweep", "--plan", "--packs-per-job", "3").stdout
    with mock.patch.dict(os.environ, bench._process_options()["env"]):
        scripts = json.loads(bench.call("sweep", "--plan", "--script", "--json").out)["scripts"]
    result = bench.run("sweep")
    assert result.returncode == 0, result.stderr
    assert "4 packs in 3 jobs, 3 jobs at a time" in result.stderr
    recorded_once(bench)
    assert all("\n#SBATCH --partition=main,high\n" in script for script in scripts)
    accepted_and_submitted(bench, scripts)
    _, students = sorted(bench.submissions().values(), key=lambda note: int(note["job_id"]))
    seeds = [{bench.plan().plan.runs[k].science.seed for k in task} for task in students["packs"]]
    assert seeds == [{0, 1}, {2}]
    for seed in (0, 1, 2):
        same_end(bench, finished, *METHODS, seed=seed)
    assert all(bench.attempts(k) == 1 for k in bench.plan().plan.runs)


def test_few_arrays_and_few_calls_however_many_runs(bench: ClusterBench) -> None:
    """Teachers share an array, and students have one per teacher. Arrays are cut to the cluster's limit."""
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
        result = bench.run("sweep", "--detach")
        assert result.returncode == 0, result.stderr
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
    """SLURM reports the requested resources, and what the user's variables add. Python starts in a container (a
    stand-in for one) after the profile's setup."""
    bench.variables = {"SBATCH_PARTITION": "low", "SBATCH_TIMELIMIT": "3", "SBATCH_JOB_NAME": "mine"}
    bench.profile = {
        "by_size": [{"student": "digits_net_w8", "resources": {"time_minutes": 7, "mem_gb": 1.5}}],
        "setup": ["export LOADED=cuda"],
    }
    contained = bench.put_in_container("/images/kd.sif")
    bench.sweep = {**SWEEP, "methods": {"kd": {}}, "seeds": [0]}
    bench.sbatch = {"hold": True}
    teacher, kd = teacher_run(bench), bench.cells()["kd", 0].run_id
    scripts = json.loads(bench.run("sweep", "--plan", "--script", "--json").stdout)["scripts"]
    assert not bench.store.root.exists(), "a dry run writes nothing"
    assert bench.run("sweep", "--detach").returncode == 0
    accepted_and_submitted(bench, scripts)
    settings = {job: rest for job, *rest in bench.jobs("%i|%l|%m|%P")}
    assert settings[bench.job_of(teacher)] == ["7:00", "1.50G", "low"]
    assert settings[bench.job_of(kd)] == ["10:00", "1G", "low"]
    bench.release()
    until(lambda: bench.store.done_ids() == {teacher, kd})
    assert contained.read_text().splitlines() == ["cuda /images/kd.sif"] * 2


def accepted_and_submitted(bench: ClusterBench, scripts: list[str]) -> None:
    """Check that sbatch takes a dry run's scripts, and that the same were submitted but for what it cannot know."""
    notes = sorted(bench.submissions().values(), key=lambda note: int(note["job_id"]))
    assert len(scripts) == len(notes) and "# --dependency=afterany: task 0 of script 1, whose number" in scripts[1]
    for number, (script, note) in enumerate(zip(scripts, notes, strict=True), 1):
        (path := bench.folder / "script.sh").write_text(script)
        bench.cluster.client("sbatch", "--test-only", str(path))
        (submitted,) = Path(note["folder"]).glob("*_submission.sh")
        lines = [line for line in submitted.read_text().split("\n") if "--dependency" not in line]
        name = note["name"].rpartition("-")[0] + f"-dryrun{number:02}"
        shown = script.replace(name, note["name"]).split("\n")
        assert [line for line in shown if not line.startswith("# ") or line in lines] == lines


def test_no_more_jobs_than_the_user_may_submit(bench: ClusterBench, finished: Bench) -> None:
    """Jobs over the limit are submitted as others end."""
    name = commands.user()
    limit = ("-i", "modify", "user", name, "set")
    bench.sweep = {**SWEEP, "methods": {"student": {}}, "seeds": [0, 1, 2]}
    try:
        bench.cluster.client("sacctmgr", *limit, "maxsubmitjobs=2")
        until(lambda: "MaxSubmitJobs=2" in bench.cluster.client("scontrol", "show", "assoc_mgr", "flags=assoc"))
        result = bench.run("sweep")
    finally:
        bench.cluster.client("sacctmgr", *limit, "maxsubmitjobs=-1")
    assert result.returncode == 0, result.stderr
    assert "1 run not submitted yet" in result.stderr
    recorded_once(bench)
    for seed in (0, 1, 2):
        same_end(bench, finished, "student", seed=seed)


def test_two_sweeps_at_once_submit_once(with_teacher: ClusterBench, finished: Bench) -> None:
    with_teacher.sweep = small(0, 1)
    with_teacher.count_calls()
    both = [with_teacher.start("sweep"), with_teacher.start("sweep")]
    for process in both:
        ended(process)
    assert with_teacher.calls()["sbatch"] == len(with_teacher.submissions()) == 1
    recorded_once(with_teacher)
    assert all(with_teacher.attempts(c.run_id) == 1 for c in with_teacher.cells().values())
    same_end(with_teacher, finished, *METHODS)


def test_jobs_of_a_submitter_that_died_are_adopted(with_teacher: ClusterBench, finished: Bench) -> None:
    with_teacher.sweep = small(0, 1)
    with_teacher.wrap("sbatch", '"$REAL" "$@"; kill -9 $PPID')
    assert with_teacher.run("sweep", "--detach").returncode == -signal.SIGKILL
    (note,) = with_teacher.submissions().values()
    assert note["job_id"] is None
    assert [name for _, name in with_teacher.jobs("%i|%j")] == [note["name"]] * 2
    with_teacher.count_calls()
    ended(with_teacher.start("sweep"))
    assert with_teacher.calls()["sbatch"] == 0 and len(with_teacher.submissions()) == 1
    recorded_once(with_teacher)
    assert all(with_teacher.attempts(c.run_id) == 1 for c in with_teacher.cells().values())
    same_end(with_teacher, finished, *METHODS)


def test_detached_shown_cancelled_and_resumed_without_accounting(with_teacher: ClusterBench, finished: Bench) -> None:
    with_teacher.sweep = small(0, **SLOW)
    with_teacher.slow(1)
    with_teacher.sbatch = {"hold": True}
    with_teacher.variables = {
        "SQUEUE_STATES": "RUNNING",
        "SQUEUE_USERS": "x",
        "SLURM_CLUSTERS": "x",
        "SCANCEL_USER": "x",
    }
    kd = with_teacher.cells()["kd", 0]
    label = with_teacher.plan().plan.runs[kd.run_id].label
    try:
        with_teacher.cluster.stop_accounting()
        assert "detached" in ended(with_teacher.start("sweep", "--detach"))
        pending = with_teacher.states()[label]
        assert pending["state"] == "pending" and pending["remark"].startswith("JobHeldUser"), pending
        with_teacher.release()
        until(lambda: with_teacher.mid_run(kd.run_id))
        running = with_teacher.states()[label]
        assert (running["state"], running["epoch"], running["epochs"]) == ("running", 0, 3)
        text = with_teacher.run("status").stdout.splitlines()
        assert "epoch 1/3" in next(line for line in text if line.startswith(kd.run_id))
        assert text[-1] == f"{len(METHODS) + 1} running, 1 done"
        assert "ended the jobs of 1 queue" in with_teacher.run("status", "--cancel").stderr
        until(lambda: not with_teacher.jobs_left())
        assert with_teacher.states()[label]["state"] == "to do", "nothing is known of jobs that have ended"
        efficiency = with_teacher.efficiency()
        assert efficiency["not_answered"].startswith("sacct: ")
        assert [(each["source"], each["jobs"]) for each in efficiency["classes"]] == [("records", 1)], "the teacher"
    finally:
        with_teacher.cluster.start_accounting()
    until(lambda: with_teacher.states()[label]["state"] == "cancelled")
    assert with_teacher.states()[label]["requeued"] == 1
    with_teacher.quick()
    ended(with_teacher.start("sweep"))
    recorded_once(with_teacher)
    same_end(with_teacher, finished, *METHODS)
    assert with_teacher.attempts(kd.run_id) == 2


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
    """A user's method next to the sweep file is changed while its run is pending. Its helper is not copied."""
    mine = bench.folder / "mine.py"
    mine.write_text(METHOD)
    (bench.folder / "my_helper.py").write_text("SCALE = 1.0\n")
    bench.sweep = {**SWEEP, "methods": {"mine": {"use": "mine:Mine"}}, "seeds": [0]}
    bench.sbatch = {"hold": True, "chdir": None}
    result = bench.run("sweep", "--detach")
    assert result.returncode == 0, result.stderr
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

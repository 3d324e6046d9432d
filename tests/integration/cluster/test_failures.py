"""Runs that fail on a cluster: their records, the reports and retries."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.support.bench import SWEEP, USER_METHODS, Bench, teacher_run, until
from tests.support.cluster_bench import METHODS, ON_SLURM, SLOW, ClusterBench, ended, recorded_once, small
from tests.support.disks import FILLS, PAIRS, WEIGHTS, tmpfs
from tests.support.interruptions import same_end

pytestmark = ON_SLURM


def test_a_failing_teacher_fails_its_students_and_can_be_tried_again(bench: ClusterBench, finished: Bench) -> None:
    bench.sweep = {**small(0), "methods": {m: SWEEP["methods"][m] for m in ("student", "kd")}}
    bench.sbatch, bench.profile = {"hold": True}, {"notify": "cat >> told"}
    teacher, kd = teacher_run(bench), bench.cells()["kd", 0].run_id
    assert bench.run("sweep", "--detach").returncode == 0
    (bench.store.run(teacher) / "science.json").write_text("{")
    bench.release()
    until(lambda: kd in bench.store.failed_ids())
    result = bench.run("sweep")
    assert result.returncode == 1, result.stderr
    assert "2 failed" in result.stderr
    until(lambda: not bench.jobs_left())
    failure = bench.store.failure(kd)
    assert failure is not None and failure.kind == "teacher"
    assert f"its teacher's run {teacher} failed" in failure.cause
    assert bench.attempts(kd) == 1
    assert "2 failed, 2 causes" in bench.run("status", "--failures").stdout
    failed, stuck = (bench.folder / "told").read_text().splitlines()
    assert "on cluster my: first failure: digits_net_w8" in failed, "by the teacher's job, and not by the student's"
    assert "small on cluster my: stuck: 1 of 3 runs done, 2 failed, 0:0" in stuck, "by the job that was the last"

    rerun = bench.run("sweep", "--retry-failed")
    assert rerun.returncode == 0, rerun.stderr
    recorded_once(bench)
    same_end(bench, finished, "student", "kd")
    until(lambda: not bench.jobs_left())
    *_, done = told = (bench.folder / "told").read_text().splitlines()
    assert len(told) == 3 and "small on cluster my: all done, 3 of 3 runs, 0:0" in done


def test_a_code_error_is_not_retried_until_asked_for(with_teacher: ClusterBench, finished: Bench) -> None:
    with_teacher.sweep = small(0, bad={"use": f"{USER_METHODS}:Raises"}, **SLOW)
    with_teacher.profile = {"notify": "cat >> told"}
    (with_teacher.folder / "raise-at").write_text("3")
    with_teacher.slow(1)
    bad, before = with_teacher.cells()["bad", 0].run_id, with_teacher.store.done_ids()
    assert with_teacher.run("sweep", "--detach").returncode == 0
    until((with_teacher.folder / "told").exists)
    assert with_teacher.store.done_ids() == before, "told by a job that goes on"
    with_teacher.quick()
    result = with_teacher.run("sweep")
    assert result.returncode == 1 and "this method has a bug" in result.stderr, result.stderr
    same_end(with_teacher, finished, *METHODS)
    assert with_teacher.attempts(bad) == 1 and len(with_teacher.submissions()) == 1
    assert with_teacher.states()[with_teacher.plan().plan.runs[bad].label]["kind"] == "code"
    assert with_teacher.run("sweep").returncode == 1
    assert len(with_teacher.submissions()) == 1
    (with_teacher.folder / "raise-at").unlink()
    rerun = with_teacher.run("sweep", "--retry-failed")
    assert rerun.returncode == 0, rerun.stderr
    recorded_once(with_teacher)


def test_a_run_that_is_killed_again_and_again_is_given_up(with_teacher: ClusterBench, finished: Bench) -> None:
    with_teacher.sweep = small(0, **SLOW)
    with_teacher.profile = {"max_attempts": 2}
    with_teacher.slow(1)
    assert with_teacher.run("sweep", "--detach").returncode == 0
    kd, killed = with_teacher.cells()["kd", 0].run_id, set[int]()

    def is_given_up_or_killed_once_more() -> bool:
        for attempt in with_teacher.store.attempts(kd):
            if attempt["pid"] not in killed:
                os.kill(attempt["pid"], signal.SIGKILL)  # before it has a checkpoint
                killed.add(attempt["pid"])
        return kd in with_teacher.store.failed_ids()

    until(is_given_up_or_killed_once_more)
    failure = with_teacher.store.failure(kd)
    assert failure is not None and (failure.kind, failure.cause) == ("killed", "no progress in 2 attempts")
    assert "Killed" in failure.details
    with_teacher.quick()
    rerun = with_teacher.run("sweep", "--retry-failed")
    assert rerun.returncode == 0, rerun.stderr
    recorded_once(with_teacher)
    same_end(with_teacher, finished, *METHODS)


def test_jobs_that_end_before_python_starts_fail_with_their_log(bench: ClusterBench) -> None:
    """They are not tried again, unless on another node, where the profile says so. Neither ``export: NONE`` nor a % in
    the path is in the way of the repaired profile.
    """
    bench.folder = bench.folder / "50%N 100%"
    bench.folder.mkdir()
    bench.sweep = {**small(0, 1), "methods": {"student": {}}}
    bench.profile = {"python": "/no/such/python"}
    result = bench.run("sweep")
    assert result.returncode == 1 and len(bench.submissions()) == 1, result.stderr
    for failure in map(bench.store.failure, bench.plan().plan.runs):
        assert (
            failure
            and failure.kind == "killed"
            and re.fullmatch(
                r"its job \d+_[01] ended on node\d before any run began, with exit code 127: .*/no/such/python.*",
                failure.cause,
            )
        ), failure
        assert "Exited with exit code 127" in failure.details
        assert bench.call("status", "--logs", failure.run_id).out == failure.details + "\n"
    setup = 'if [ "$SLURMD_NODENAME" = node1 ]; then echo no such module; exit 3; fi'
    bench.profile, bench.sbatch = {"setup": setup, "retry": {"exclude_nodes": 1}}, {"export": "NONE"}
    rerun = bench.run("sweep", "--retry-failed")
    assert rerun.returncode == 0, rerun.stderr
    assert len(bench.submissions()) >= 3, "the second of which has not begun"
    recorded_once(bench)
    assert {tuple(bench.row(k)["retries"]) for k in bench.plan().plan.runs} == {("retried on another node than node1",)}
    avoided = "nodes that this sweep avoids for a day: node1 (job "
    assert avoided in rerun.stderr and "with exit code 3: no such module)" in rerun.stderr


def test_a_node_that_ends_jobs_at_once_is_left_while_others_work(bench: ClusterBench) -> None:
    """The job goes on elsewhere. After a second one no further job begins there: it is alone, and would fail."""
    bench.sweep = {**SWEEP, "recipe": {**SWEEP["recipe"], "epochs": 1}, "methods": {"student": {}}}
    bench.sweep["seeds"] = [0, 1, 2, 3, 4]
    visits = bench.folder / "visits"
    broken = f'if [ "$SLURMD_NODENAME" = node1 ]; then echo "$kd_job" >> {visits}; exit 3; fi'
    bench.profile, bench.sbatch = {"setup": broken}, {"exclusive": True}
    result = bench.run("sweep")
    assert result.returncode == 0, result.stderr
    recorded_once(bench)
    visitors = visits.read_text().split()
    avoided = re.search(
        r"nodes that this sweep avoids for a day: node1 \(job (\w+) ended there at once, with exit code 3, and works",
        result.stderr,
    )
    assert avoided and avoided[1] in visitors and len(visitors) == len(set(visitors)) > 1, result.stderr
    for run in bench.plan().plan.runs:
        log = Path(bench.store.attempts(run)[-1]["log"])
        has_left = log.name.removesuffix("_0_log.out") in visitors
        assert bench.row(run)["retries"] == ["retried on another node than node1"] * has_left
        left = "ended at once on node1, while other jobs work elsewhere: so will the next start"
        assert (left in log.read_text()) == has_left
    bench.sweep["seeds"].append(5)
    assert bench.run("sweep").returncode == 0
    recorded_once(bench)
    assert visits.read_text().split() == visitors


@pytest.mark.parametrize("end", ["timed out", "preempted"])
def test_status_reports_how_a_job_ended(bench: ClusterBench, end: str) -> None:
    """Status reads the store and calls squeue and sacct once. A step takes too long for any checkpoint."""
    bench.sweep = {**SWEEP, "methods": SLOW, "seeds": [0, 1]}
    bench.profile = {"signal_seconds": 1} if end == "timed out" else {"partition": "lowcancel"}
    bench.slow(600)
    runs = {k: run.label for k, run in bench.plan().plan.runs.items()}
    assert bench.run("sweep", "--detach").returncode == 0
    until(lambda: all(map(bench.store.is_running, runs)))
    if end == "preempted":
        bench.preempt()
    else:
        for job in map(bench.job_of, runs):
            bench.cluster.client("scontrol", "update", f"jobid={job}", "EndTime=now")
    until(lambda: not bench.jobs_left())
    until(lambda: "to do" not in {row["state"] for row in bench.states().values()})  # the accounting lags
    bench.count_calls()
    bench.profile |= {"poll_seconds": 600}  # a slow machine may take longer than the tests' own between two runs
    out = bench.run("status").stdout.splitlines()
    assert bench.calls() == {"squeue": 1, "sacct": 1}
    assert out[-1] == f"2 {end}", out
    assert all(line.startswith(f"{line[:16]}  {end}  {runs[line[:16]]}  job ") for line in out[:-1]), out
    bench.quick()
    bench.profile = {"retry": {"time_minutes": "2x", "max_time_minutes": 15}}
    ended(bench.start("sweep"))
    recorded_once(bench)
    minutes = 15 if end == "timed out" else 10
    last = max((note["job_id"] for note in bench.submissions().values()), key=int)
    of_last = ("sacct", "-X", "--noheader", f"--jobs={last}", "--format=TimelimitRaw")
    until(lambda: bench.cluster.client(*of_last).split() == [str(minutes)] * 2)  # the accounting lags
    assert all(bench.attempts(k) == 2 == bench.row(k)["attempts"] for k in runs)
    # The limit that ended them is the one that this test has set.
    retries = ["retried with 15 minutes after 1 was too few"] if end == "timed out" else []
    assert [bench.row(k)["retries"] for k in runs] == [retries, retries]


@pytest.mark.parametrize("left", [WEIGHTS // 2, 0], ids=["weights", "everything"])
def test_a_full_results_disk(bench: ClusterBench, left: int) -> None:
    """A disk without space for weights fails the run; without space for the failure too, the command ends."""
    (bench.folder / "filling.py").write_text(FILLS)
    (bench.folder / "fill").touch()
    bench.sweep = {**SWEEP, "methods": {"fills": {"use": "filling:Fills", "params": {"left": left}}}, "pairs": PAIRS}
    bench.sweep["seeds"] = [0]
    with tmpfs(bench.folder / "results", "size=32m"):
        result = bench.run("sweep")
        assert not bench.store.done_ids() and not list(bench.store.root.rglob("*.tmp"))
        if left:
            assert result.returncode in (1, 2), result.stderr  # 2: no space for the table either
            assert {row["kind"] for row in bench.states().values()} == {"disk"}
            out = bench.run("status", "--failures").stdout
            assert out.startswith("1 failed, 1 cause\n") and "no space left on the disk (writing student." in out
        else:
            assert result.returncode == 2 and "no space left" in result.stderr.splitlines()[-1], result.stderr
        until(lambda: not bench.jobs_left())
        (bench.folder / "fill").unlink()
        (bench.store.root / "filler").unlink()
        ended(bench.start("sweep", "--retry-failed"))
        assert bench.store.done_ids() == {row["run_id"] for row in bench.states().values()}
        assert len(list(bench.store.records.iterdir())) == 1 and not bench.store.failed_ids()


def test_a_job_that_runs_out_of_memory_asks_for_more(bench: ClusterBench) -> None:
    """It does so by itself: nobody watches."""
    retry = {"mem_gb": "2.5x", "max_mem_gb": 1.1}
    bench.profile = {"python": sys.executable, "resources": {"mem_gb": 0.45}, "retry": retry}
    bench.sweep = {**SWEEP, "methods": SLOW, "seeds": [0]}
    bench.slow(1)
    assert bench.run("sweep", "--detach").returncode == 0
    (run,) = bench.plan().plan.runs
    until(lambda: [attempt["memory_mb"] for attempt in bench.store.attempts(run)][-1:] == [1126])
    bench.quick()
    until(lambda: not bench.jobs_left())
    recorded_once(bench)
    last = bench.store.attempts(run)[-1]
    assert last["too_little_mb"] == 460 and last["log_bytes"] > 0, "the log of the first start lies before"
    assert bench.row(run)["retries"] == ["retried with 1.1 GB after running out of memory with 0.45"]
    (name,) = bench.submissions()
    ((log_file,)) = (bench.store.jobs / name).glob("*_log.out")
    assert "460 MB were too little: the next start asks for 1126 MB" in log_file.read_text()


def test_out_of_memory_is_reported_and_soon_given_up(bench: ClusterBench) -> None:
    python = sys.executable  # a process of its own, whose memory SLURM sees
    bench.profile = {"python": python, "resources": {"mem_gb": 0.45}}
    # SLURM looks at its memory every two seconds, which a shorter training may slip through.
    bench.sweep = {**SWEEP, "methods": {"student": {}}, "seeds": [0], "recipe": {**SWEEP["recipe"], "epochs": 1000}}
    result = bench.run("sweep")
    assert result.returncode == 1, result.stderr
    (failure,) = map(bench.store.failure, bench.plan().plan.runs)
    assert failure and failure.kind == "killed"
    assert failure.cause == "no result after 3 attempts, out of memory: raise `mem_gb` in the profile"
    assert failure.cause in result.stderr and "memory" in failure.details

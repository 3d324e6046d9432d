"""Invariant 5 and the local queue: jobs need no driver, every run is trained once, and commands can come and go."""

import os
import signal
from pathlib import Path

import torch

from tests.support.bench import SWEEP, USER_METHODS, Bench, teacher_run, until
from tests.support.cli import PATIENCE, run_command
from tests.support.interruptions import same_end
from tests.support.pickles import Calls

SLOW = {"slow": {"use": f"{USER_METHODS}:Sleeps"}}


def slow_down(bench: Bench, seconds: float) -> None:
    (bench.folder / "slow").write_text(str(seconds))


def in_training(bench: Bench, run_id: str) -> bool:
    return bench.store.is_running(run_id) and bench.store.progress(run_id).get("fraction", 0) > 0


def dispatcher(bench: Bench) -> int:
    return int(next((bench.store.root / "queues").glob("*.lock")).read_text().split()[0])


def test_jobs_outlive_the_queue_and_two_commands_share_the_rest(bench: Bench) -> None:
    bench.sweep = {**SWEEP, "methods": SLOW, "seeds": [0, 1, 2]}
    runs = [cell.run_id for cell in bench.cells().values()]
    slow_down(bench, 0.2)
    started = bench.run("sweep", "--detach", "--max-parallel", "1")
    assert started.returncode == 0 and "detached" in started.stderr
    until(lambda: in_training(bench, runs[0]))
    os.kill(dispatcher(bench), signal.SIGKILL)
    slow_down(bench, 0)
    until(bench.store.record(runs[0]).exists)
    assert bench.store.done_ids() == {runs[0]}, "its job wrote it, and nothing else was started"

    slow_down(bench, 0.01)
    both = [bench.start("sweep", "--max-parallel", "2") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    for run_id in runs:
        assert len(bench.store.attempts(run_id)) == 1 == bench.row(run_id)["attempts"], "trained once"


def test_two_sweeps_of_different_files_train_a_common_run_once(with_teacher: Bench, finished: Bench) -> None:
    """The job that takes the lock of a run common to two queues trains it."""
    with_teacher.sweep = {**SWEEP, "methods": {"kd": {}, **SLOW}, "seeds": [0]}
    kd, slow = (with_teacher.cells()[m, 0].run_id for m in ("kd", "slow"))
    slow_down(with_teacher, 0.02)
    whole = with_teacher.start("sweep")
    part = with_teacher.start("sweep", "--only", "method=kd")
    for process in (whole, part):
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    assert len(list((with_teacher.store.root / "queues").glob("*.json"))) == 2
    assert len(with_teacher.store.attempts(kd)) == len(with_teacher.store.attempts(slow)) == 1
    same_end(with_teacher, finished, "kd")


def test_interrupt_leaves_jobs_cancel_ends_them_and_the_sweep_resumes(with_teacher: Bench, finished: Bench) -> None:
    with_teacher.sweep = {**SWEEP, "methods": {"kd": {}, "crd": SWEEP["methods"]["crd"], **SLOW}, "seeds": [0]}
    kd = with_teacher.cells()["kd", 0].run_id
    slow_down(with_teacher, 1.0)
    sweep = with_teacher.start("sweep")
    until(lambda: in_training(with_teacher, kd))
    os.killpg(sweep.pid, signal.SIGINT)
    _, err = sweep.communicate(timeout=PATIENCE)
    assert sweep.returncode == 130 and "Traceback" not in err and "the jobs continue" in err

    label = with_teacher.plan().plan.runs[kd].label
    state = with_teacher.states()[label]
    assert state["state"] == "running" and state["epochs"] == 3
    assert "running" in with_teacher.run("status").stdout
    of_store = run_command("status", "--results", with_teacher.store.root).out
    assert f"\n  {kd}  running  digits_net_w8 > digits_net_w4 / kd / seed 0  epoch " in of_store

    cancelled = with_teacher.run("status", "--cancel")
    assert cancelled.returncode == 0 and "ended the jobs of 1 queue" in cancelled.stderr
    until(lambda: not with_teacher.store.is_running(kd))
    assert with_teacher.states()[label]["state"] == "to do"
    of_store = run_command("status", "--results", with_teacher.store.root).out
    assert of_store.startswith("nothing runs or waits\nsmall: 3 to do; started ")
    assert "nothing is running" in with_teacher.run("status", "--cancel").stderr

    slow_down(with_teacher, 0)
    rerun = with_teacher.run("sweep")
    assert rerun.returncode == 0, rerun.stderr
    same_end(with_teacher, finished, "kd", "crd")
    assert len(with_teacher.store.attempts(kd)) == 2


def test_a_retry_starts_while_others_still_train(with_teacher: Bench) -> None:
    """A dispatcher that started before the retry reads it. What happens is told though nobody watches."""
    with_teacher.sweep = {**SWEEP, "methods": {"bad": {"use": f"{USER_METHODS}:Raises"}, **SLOW}, "seeds": [0, 1]}
    bad, slow = ([with_teacher.cells()[m, seed].run_id for seed in (0, 1)] for m in ("bad", "slow"))
    (with_teacher.folder / "raise-at").write_text("3")
    slow_down(with_teacher, 0.02)
    notify = ("--notify", "cat >> told")
    with_teacher.run("sweep", "--detach", "--max-parallel", "1", *notify)
    until(with_teacher.store.record(slow[0]).exists)
    slow_down(with_teacher, 0.5)
    until(lambda: in_training(with_teacher, slow[1]) and set(bad) == with_teacher.store.failed_ids())
    pid = dispatcher(with_teacher)
    (with_teacher.folder / "raise-at").unlink()
    rerun = with_teacher.run("sweep", "--retry-failed", "--detach", "--max-parallel", "2", *notify)
    assert rerun.returncode == 0, rerun.stderr
    until(with_teacher.store.record(bad[0]).exists)
    assert dispatcher(with_teacher) == pid and not with_teacher.store.record(slow[1]).exists(), (
        "next to it, not after it"
    )
    slow_down(with_teacher, 0)
    until(lambda: set(bad + slow) <= with_teacher.store.done_ids())
    assert [len(with_teacher.store.attempts(k)) for k in (*bad, *slow)] == [2, 2, 1, 1]
    failed, done = until(lambda: len(lines := (with_teacher.folder / "told").read_text().splitlines()) > 1 and lines)
    assert "digits_net_w8 > digits_net_w4 / tests.support.user_methods:Raises" in failed
    assert "first failure: " in failed and "this method has a bug; 1 of 5 runs done, 0:0" in failed
    assert "all done, 5 of 5 runs, 0:0" in done


def test_cancel_ends_jobs_whose_queue_is_dead(bench: Bench) -> None:
    bench.sweep = {**SWEEP, "methods": SLOW, "seeds": [0, 1]}
    runs = [cell.run_id for cell in bench.cells().values()]
    slow_down(bench, 0.3)
    bench.run("sweep", "--detach", "--max-parallel", "1")
    until(lambda: in_training(bench, runs[0]))
    os.kill(dispatcher(bench), signal.SIGKILL)
    assert bench.store.is_running(runs[0])
    assert "ended the jobs of 1 queue" in bench.run("status", "--cancel").stderr
    until(lambda: not bench.store.is_running(runs[0]))
    assert not bench.store.is_running(runs[1]) and bench.store.done_ids() == set()


def test_the_fork_servers_end_costs_nothing(bench: Bench) -> None:
    """The job that runs goes on, and another server starts the next one."""
    bench.sweep = {**SWEEP, "methods": SLOW, "seeds": [0, 1]}
    runs = [cell.run_id for cell in bench.cells().values()]
    slow_down(bench, 0.1)
    sweep = bench.start("sweep", "--max-parallel", "1")
    until(lambda: in_training(bench, runs[0]))
    job = bench.store.attempts(runs[0])[-1]["pid"]
    server = int(Path(f"/proc/{job}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(server, signal.SIGKILL)
    slow_down(bench, 0)
    _, err = sweep.communicate(timeout=PATIENCE)
    assert sweep.returncode == 0, err
    assert [len(bench.store.attempts(k)) for k in runs] == [1, 1]


def test_a_polite_end_leaves_a_checkpoint_of_that_very_step(bench: Bench) -> None:
    """A job checkpoints and ends after the step in which SIGTERM comes, and the queue starts it again."""
    bench.sweep = {**SWEEP, "methods": SLOW, "seeds": [0]}
    run_id = bench.cells()["slow", 0].run_id
    slow_down(bench, 0.2)
    bench.run("sweep", "--detach")
    until(lambda: in_training(bench, run_id))
    os.kill(bench.store.attempts(run_id)[-1]["pid"], signal.SIGTERM)
    slow_down(bench, 0)
    until(bench.store.record(run_id).exists)
    assert len(bench.store.attempts(run_id)) == 2
    assert not bench.store.failed_ids()


def test_a_failed_teacher_fails_those_who_learn_from_it_with_that_reason(bench: Bench, finished: Bench) -> None:
    bench.sweep = {**SWEEP, "methods": {"student": {}, "kd": {}}, "seeds": [0]}
    teacher, kd = teacher_run(bench), bench.cells()["kd", 0].run_id
    bench.store.run(teacher).mkdir(parents=True)
    bench.store.checkpoints(teacher).write_text("a file where a folder should be")
    first = bench.run("sweep")
    assert first.returncode == 1
    states = bench.states()
    student = bench.cells()["student", 0].run_id
    assert {row["run_id"] for row in states.values() if row["state"] == "failed"} == {teacher, kd}
    same_end(bench, finished, "student")  # which needs no teacher
    assert len(bench.store.attempts(student)) == 1
    cause = states["digits_net_w8 > digits_net_w4 / kd / seed 0"]["cause"]
    why = bench.store.failure(teacher)
    assert "checkpoints" in why.cause and cause == f"its teacher's run {teacher} failed: {why.cause}"
    assert bench.store.failure(kd).kind == "teacher" and not bench.store.attempts(kd), "never started"
    assert "1 x code" in bench.run("status", "--failures").stdout

    bench.store.checkpoints(teacher).unlink()
    retried = bench.run("sweep", "--retry-failed")
    assert retried.returncode == 0, retried.stderr
    assert bench.row(kd)["started_at"] > bench.row(teacher)["finished_at"]
    same_end(bench, finished, "student", "kd")


def test_malicious_teacher_weights_are_a_reported_failure(bench: Bench) -> None:
    trace = bench.folder / "trace"
    torch.save({"fc.weight": Calls(Path.write_text, trace, "ran")}, bench.folder / "evil.pth")
    pair = {**SWEEP["pairs"][0], "teacher_weights": {"file": "evil.pth"}}
    bench.sweep = {**SWEEP, "pairs": [pair], "methods": ["kd", "student"], "seeds": 1}
    result = bench.run("sweep")
    assert result.returncode == 1
    state, student = (bench.states()[f"digits_net_w8 > digits_net_w4 / {m} / seed 0"] for m in ("kd", "student"))
    assert student["state"] == "done"
    assert state["state"] == "failed" and state["kind"] == "data"
    assert "evil.pth: holds no tensors by name" in state["cause"]
    assert not trace.exists()

"""Queues that train a sweep's runs, by whatever command they were started."""

import json
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.planning import watch as watching
from harness.planning.plan import Planned, plan_sweep
from harness.planning.queues import queue_files
from harness.spec.sweep_plan import Run
from harness.store.locks import Lock
from slurm.local import lock_of
from slurm.queue import Queue, QueuedJob, cancelled_file, own_queue_file
from tests.support.cli import run_command
from tests.support.planned_costs import SWEEP, record
from tests.support.sciences import make_science

TUNED = {**SWEEP, "methods": {"student": {}, "kd": {"search": {"params.temperature": [2, 4]}}}, "tune": {"trials": 2}}
ONLY = "method=student"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (path := tmp_path / "small.yaml").write_text(yaml.safe_dump(SWEEP))
    return path


def planned(file: Path, *only: str) -> Planned:
    return plan_sweep(file, file.parent / "results", only=only)


def queue_of(of: Planned, runs: Iterable[Run] | None = None, name: str | None = None) -> Path:
    """Write the queue that the sweep of a plan leaves, of its runs or others, each in a job of its own."""
    sciences = {run.run_id: run.science for run in (of.plan.runs.values() if runs is None else runs)}
    for run_id, science in sciences.items():
        of.store.write_science(run_id, science)
    path = own_queue_file(of.store, name or of.name, sciences)
    jobs = tuple(QueuedJob.from_sciences({k: science}, None) for k, science in sciences.items())
    Queue(str(of.store.root), jobs, 2, 1, None, {}, None).write(path)
    return path


def test_the_queue_of_a_selection_is_the_files_too(file: Path) -> None:
    whole, selected = planned(file), planned(file, ONLY)
    of_selection = queue_of(selected)
    assert selected.name != whole.name == "small" and queue_files(whole) == [of_selection]
    of_all = queue_of(whole)
    assert queue_files(whole) == queue_files(selected) == [of_selection, of_all]
    assert queue_files(selected, alone=True) == [of_selection], "the other trains runs besides"
    assert queue_files(planned(file, "method=kd"), alone=True) == []


def test_queues_of_other_runs_are_others(file: Path) -> None:
    """Such are those of another sweep with a longer name, and of the same file with --set."""
    whole = planned(file)
    changed = plan_sweep(file, file.parent / "results", sets=["recipe.epochs=3"])
    queue_of(changed), queue_of(whole, name="small-two")
    assert queue_files(whole) == [] and len(queue_files(changed)) == 1
    earlier = Run("0" * 16, make_science("digits_net_w4"), "")
    assert queue_files(whole) != [of_earlier := queue_of(whole, [earlier])] == queue_files(whole), (
        "the file has changed"
    )
    assert queue_files(whole, alone=True) == [of_earlier]


def test_cancel_ends_the_queue_of_a_selection(file: Path) -> None:
    of_selection, results = queue_of(planned(file, ONLY)), file.parent / "results"
    assert run_command("status", file, "--results", results, "--only", "method=kd", "--cancel").code == 0
    assert not cancelled_file(of_selection).exists()
    assert run_command("status", file, "--results", results, "--cancel").code == 0
    assert cancelled_file(of_selection).exists()


@pytest.mark.parametrize("change", ["", "recipe.epochs=3"], ids=["of all", "before a change"])
def test_cancel_names_the_queue_that_it_leaves(file: Path, change: str) -> None:
    of_other = queue_of(planned(file, *([] if not change else [ONLY])))
    with Lock(planned(file).store.run_lock(next(iter(Queue.read(of_other).run_ids)))):
        words = ("--set", change) if change else ("--only", ONLY)
        done = run_command("status", file, "--results", file.parent / "results", *words, "--cancel")
    assert done.code == 0 and not cancelled_file(of_other).exists()
    assert f"nothing is running that trains these runs alone; {of_other}: trains others too" in done.err


def trains(monkeypatch: pytest.MonkeyPatch, *steps: Any) -> None:
    """Let one step happen whenever the watch sleeps."""
    left = list(steps)
    monkeypatch.setattr(watching.time, "sleep", lambda seconds: left.pop(0)() if left else None)
    monkeypatch.setattr("harness.planning.queues.LOOK_SECONDS", 0.0)
    monkeypatch.setattr(watching, "ROUND_SECONDS", 0.5)


def test_watch_follows_the_queue_of_a_selection_and_one_that_is_started_later(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, selected = planned(file), planned(file, ONLY)
    first = Lock(lock_of(queue_of(selected)))
    first.acquire()
    others = [k for k in whole.plan.runs if k not in selected.plan.runs]
    later: list[Lock] = []

    def start_the_rest() -> None:
        later.append(Lock(lock_of(queue_of(whole))))
        later[0].acquire()
        record(selected, *selected.plan.runs, own=1.0)
        first.release()

    def end_the_rest() -> None:
        record(whole, *others, own=1.0)
        later[0].release()

    trains(monkeypatch, lambda: None, start_the_rest, lambda: None, end_the_rest)
    monkeypatch.setattr(watching, "LINE_SECONDS", -1)
    watched = run_command("status", file, "--results", file.parent / "results", "--watch")
    assert watched.code == 0 and "nothing trains" not in watched.err, watched.err
    assert re.findall(r"^\[./3\]", watched.err, re.MULTILINE) == ["[1/3]", "[2/3]", "[3/3]"]
    assert re.match(r"\d\d:\d\d:\d\d 0/3 done, 0 running, 3 waiting, ", watched.err), "in a pipe, a line now and then"
    assert watched.err.isascii() and watched.err.replace("\n", "").isprintable(), "without control codes"
    assert "small: 3 of 3 runs done\n" in watched.err and "python -m harness.report" in watched.err
    again = run_command("status", file, "--results", file.parent / "results", "--watch")
    assert again.code == 0 and again.err.startswith("small is finished: 3 of 3 runs done\n"), "at once"


def test_watch_follows_a_tuning_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trials are other runs than the file's own, which nothing trains meanwhile."""
    file.write_text(yaml.safe_dump(TUNED))
    base = planned(file)
    trials = [Run(s.run_id, s, "") for s in (make_science("digits_net_w4", seed=seed) for seed in (1000, 1001))]
    tuning = Lock(lock_of(queue_of(base, trials, base.tuning_name)))
    tuning.acquire()

    def end() -> None:
        for trial in trials:
            base.store.write_failure(trial.run_id, "code", "it breaks", "", "log")
        tuning.release()

    trains(monkeypatch, lambda: None, end)
    watched = run_command("status", file, "--results", file.parent / "results", "--watch")
    assert watched.code == 0 and "small: 0 of 2 runs done, 2 failed\n" in watched.err, watched.err
    assert f"[2/2] digits_net_w4 / student {trials[1].run_id[:6]} / seed 1001: FAILED: it breaks" in watched.err


# all that runs in a store -------------------------------------------------------------------------------------------


@pytest.fixture
def busy(file: Path) -> Iterator[Path]:
    """Return the store of a sweep whose file was edited while its jobs run, one that was stopped, and one that ended.

    Of the first, a teacher is in training and two students wait.
    """
    before = plan_sweep(file, file.parent / "results", sets=["recipe.epochs=3"])
    store, log = before.store, file.parent / "job.log"
    log.write_text("17:43:05 it trains\n")
    teacher = next(iter(before.plan.runs))
    with Lock(lock_of(queue_of(before, name="small"))), Lock(store.run_lock(teacher)):
        store.add_attempt(teacher, log=str(log))
        store.write_progress(teacher, stage="main", epoch=1, epochs=3, fraction=0.4, seconds_left=65.0, top1=51.5)
        queue_of(planned(file, ONLY), name="stopped")
        ended = [Run(s.run_id, s, "") for s in (make_science("digits_net_w4", seed=seed) for seed in (7, 8))]
        queue_of(before, ended, "ended")
        for run in ended:
            store.write_failure(run.run_id, "code", "it breaks", "", str(log))
        yield store.root


def test_status_without_a_file_shows_what_runs_whatever_its_file_says_now(busy: Path, file: Path) -> None:
    shown = run_command("status", "--results", busy)
    head, running, *waiting, stopped, finished = shown.out.splitlines()
    assert shown.code == 0 and shown.err == ""
    assert re.fullmatch(r"small: 2 pending, 1 running; started \d{4}-\d\d-\d\d \d\d:\d\d by \w+", head)
    teacher = running.split()[0]
    assert running == f"  {teacher}  running  digits_net_w8 / student / seed 0  epoch 2/3, top-1 51.50 %, 1:05 left"
    assert [line[20:] for line in waiting] == [
        "pending  digits_net_w4 / student / seed 0  waits for its turn",
        "pending  digits_net_w8 > digits_net_w4 / kd / seed 0  waits for its turn",
    ]
    assert re.fullmatch(r"stopped: 1 to do; started .*", stopped) and finished == "1 finished sweep"

    sweeps = {sweep["sweep"]: sweep for sweep in json.loads(run_command("status", "--results", busy, "--json").out)}
    assert sweeps["ended"]["counts"] == {"failed": 2} and not sweeps["ended"]["runs"] and len(sweeps) == 3
    assert [run["state"] for run in sweeps["small"]["runs"]] == ["running", "pending", "pending"]
    assert run_command("status", "--results", busy, "--logs", teacher[:5]).out == "17:43:05 it trains\n"
    failed = run_command("status", "--results", busy, "--failures").out
    assert failed.startswith("2 failed, 1 cause\n") and "digits_net_w4 / student / seed 8\n" in failed

    note = "note: 3 runs of another version or selection of this sweep still run or wait: python -m harness.status"
    for command in (("status",), ("status", "--watch"), ("sweep", "--plan")):
        done = run_command(command[0], file, "--results", busy, *command[1:])
        assert done.code == 0 and f"{note} --results {busy}\n" in done.err, done
    for words in (("--only", ONLY), ("--set", "recipe.epochs=3")):
        assert note not in run_command("status", file, "--results", busy, *words).err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--cancel"], "--cancel ends the jobs of one sweep: name its file"),
        (["--only", ONLY], "--only is about a sweep file: name one"),
        (["--logs", "zz"], "--logs: unknown run 'zz'"),
        (["--json", "--watch"], "--json goes with the runs' states"),
        (["--results", "elsewhere"], "elsewhere: no such store"),
    ],
)
def test_what_needs_a_file_says_so(busy: Path, words: list[str], expected: str) -> None:
    assert expected in run_command("status", "--results", busy, *words).error
    assert not list(busy.glob("queues/*.cancelled"))


def test_watch_without_a_file_ends_when_nothing_runs(busy: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan_sweep(file, busy, sets=["recipe.epochs=3"])
    teacher, student, kd = before.plan.runs

    def end_all(seconds: float) -> None:
        record(before, teacher, own=1.0)
        before.store.write_progress(teacher, stage="main", epoch=3, epochs=3, fraction=1.0, seconds_left=0.0, top1=60.0)
        record(before, student, own=1.0, status="diverged")
        before.store.write_failure(kd, "code", "it breaks", "", "log")

    monkeypatch.setattr(time, "sleep", end_all)
    watched = run_command("status", "--results", busy, "--watch")
    assert watched.code == 0 and watched.err.isascii()
    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "at ", line) for line in watched.err.splitlines()]
    assert lines[:4] == [
        "at small: 2 pending, 1 running",
        "at small: digits_net_w8 / student / seed 0: top-1 60.00 %",
        "at small: digits_net_w4 / student / seed 0: diverged",
        "at small: digits_net_w8 > digits_net_w4 / kd / seed 0: FAILED: it breaks",
    ]
    assert lines[4] == "nothing runs or waits" and lines[-1] == "2 finished sweeps"

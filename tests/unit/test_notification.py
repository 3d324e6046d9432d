"""Notifications: what is told of a submission, by whom, and how often. Records are written without training."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.store import files
from harness.store.store import Store
from slurm import array_jobs, entry, first_failure, notification, notify_command
from slurm.blocked_runs import why_blocked
from slurm.queue import Notification, Queue, QueuedJob, QueuedRun, cancelled_file, watched_file
from tests.support.bench import until
from tests.support.cli import REPO, run_command

TELL = 'printf "%s\\n" "$KD_EVENT $KD_SWEEP: $KD_SUMMARY" >> told; cat >> told'


def job(run_id: str, needs: str | None = None) -> QueuedJob:
    return QueuedJob((QueuedRun(run_id, "kd", bool(needs), 1),), needs, "small", needs and "big", 1442, 64)


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    """Return a queue of two runs, of a sweep of which another run was done before."""
    (tmp_path / "records").mkdir()
    notify = Notification(TELL, str(tmp_path), "digits", 3, 1, 0, 1_800_000_000_000_000_000)
    return Queue(str(tmp_path), (job("aaaa"), job("bbbb", "aaaa")), 1, 1, None, {}, "my/big.yaml", notify=notify)


@pytest.fixture
def queue_file(queue: Queue, tmp_path: Path) -> Path:
    path = tmp_path / "queues" / "digits-00000000.json"
    queue.write(path)
    return path


def told(queue_file: Path) -> list[str]:
    """Return what was told by the file and by its input, without times."""
    file = queue_file.parents[1] / "told"
    return [line.rpartition(", ")[0] for line in file.read_text().splitlines()] if file.exists() else []


def record(queue: Queue, *run_ids: str) -> None:
    for run_id in run_ids:
        Path(queue.store, "records", f"{run_id}.parquet").touch()


def test_the_end_is_told_once_however_many_see_it(queue: Queue, queue_file: Path) -> None:
    record(queue, "aaaa")
    notification.tell(queue_file)
    assert told(queue_file) == []
    record(queue, "bbbb")
    together = threading.Barrier(8)

    def end() -> None:
        together.wait()
        notification.tell(queue_file)

    threads = [threading.Thread(target=end) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    line = "kd: digits on cluster big: all done, 3 of 3 runs"
    assert told(queue_file) == [f"done digits: {line}", line]


def test_a_failure_and_what_it_leaves_are_told_and_a_retry_tells_again(queue: Queue, queue_file: Path) -> None:
    store = Store(Path(queue.store))
    store.write_failure("aaaa", "code", "a bug\nin \x1b[1mtwo lines", "", "")
    for _ in range(2):
        notification.tell(queue_file)
    cause = "a bug\\nin \\x1b[1mtwo lines"
    line = f"kd: digits on cluster big: first failure: small / kd (aaaa): {cause}; 1 of 3 runs done"
    assert told(queue_file) == [f"failed digits: {line}", line]
    store.write_failure("bbbb", "teacher", "its teacher failed", "", "")
    for _ in range(2):
        notification.tell(queue_file)
    line = "kd: digits on cluster big: stuck: 1 of 3 runs done, 2 failed"
    assert told(queue_file)[2:] == [f"stuck digits: {line}", line]

    for run_id in queue.run_ids:
        store.archive_failure(run_id)
    assert queue.notify
    replace(queue, notify=replace(queue.notify, submitted=1_900_000_000_000_000_000, runs=2, done=0)).write(queue_file)
    record(queue, "aaaa", "bbbb")
    notification.tell(queue_file)
    line = "kd: digits on cluster big: all done, 2 of 2 runs"
    assert told(queue_file)[4:] == [f"done digits: {line}", line]
    assert len(list(queue_file.parent.glob("*.told-*"))) == 1, "marks of the submission before are gone"


def test_a_job_tells_the_first_failure_while_it_trains_others(
    queue: Queue, queue_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_failure, "LOOK_SECONDS", 0.01)
    store = Store(Path(queue.store))
    of_job = first_failure.FirstFailure(store, queue_file, ["aaaa", "bbbb"])
    store.write_failure("bbbb", "code", "a bug", "", "")
    until(lambda: len(told(queue_file)) == 2)
    assert told(queue_file)[0].startswith("failed digits: kd: digits on cluster big: first failure: big > small / kd")
    of_job.end_look()
    without = first_failure.FirstFailure(store, queue_file, ["aaaa"])
    without.end_look()
    assert len(told(queue_file)) == 2


def test_what_nothing_trains_is_told_but_not_after_a_cancellation(queue: Queue, queue_file: Path) -> None:
    files.replace_json(cancelled_file(queue_file), True)
    notification.tell(queue_file, lambda _: "no jobs")
    assert told(queue_file) == []
    cancelled_file(queue_file).unlink()
    notification.tell(queue_file, lambda _: "no jobs")
    line = "kd: digits on cluster big: stuck: 1 of 3 runs done, 2 left: no jobs"
    assert told(queue_file) == [f"stuck digits: {line}", line]


def test_jobs_leave_lost_runs_to_whoever_watches(
    queue: Queue, queue_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who was killed while they watched counts for some minutes more."""
    monkeypatch.setattr(array_jobs, "squeue", lambda notes: [])
    job = SimpleNamespace(paths=SimpleNamespace(folder=Path("kd-digits-00000000-12345678")))
    with notification.watching() as watch:
        watch(queue_file)
        entry.tell(Store(Path(queue.store)), job)
        assert told(queue_file) == []
        since = watched_file(queue_file).stat().st_mtime
        monkeypatch.setattr(time, "time", lambda: since + notification.WATCHED_SECONDS + 1)
        assert not notification.is_watched(queue_file)
    monkeypatch.undo()
    monkeypatch.setattr(array_jobs, "squeue", lambda notes: [])
    assert not watched_file(queue_file).exists()
    entry.tell(Store(Path(queue.store)), job)
    stuck = ": 1 of 3 runs done, 2 left: they have no job: run the sweep again"
    assert {line.partition(": stuck")[2] for line in told(queue_file)} == {stuck}


def test_no_command_of_a_queue_that_others_can_have_written_is_run(queue: Queue, queue_file: Path) -> None:
    record(queue, "aaaa", "bbbb")
    queue_file.chmod(0o666)
    notification.tell(queue_file)
    assert told(queue_file) == []
    queue_file.unlink()
    notification.tell(queue_file)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("echo no such server; exit 3", "exit code 3: no such server; not told: kd: digits"),
        ("sleep 30 & wait", "it took longer than 0.2 s and was ended; not told: kd: digits"),
    ],
)
def test_a_command_that_fails_is_one_note(
    queue: Queue, queue_file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str,
    problem: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(notify_command, "TIME_LIMIT", 0.2)
    assert queue.notify
    replace(queue, notify=replace(queue.notify, command=command)).write(queue_file)
    record(queue, "aaaa", "bbbb")
    for _ in range(2):
        notification.tell(queue_file)
    assert (capfd.readouterr().err.splitlines()[0]).startswith(f"note: the command of --notify: {problem}")


def test_a_folder_that_is_gone_is_a_note(
    queue: Queue, queue_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert queue.notify
    replace(queue, notify=replace(queue.notify, folder=str(tmp_path / "gone"))).write(queue_file)
    record(queue, "aaaa", "bbbb")
    notification.tell(queue_file)
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "No such file" in err


class Jobs:
    """A backend that knows the states of some runs; the others have no job."""

    def __init__(self, **states: tuple[str, str]) -> None:
        self.states = states

    def runs_without_job(self) -> set[str]:
        return {"aaaa", "bbbb"} - self.states.keys()

    def scheduled(self, run_id: str) -> tuple[str, str]:
        return self.states[run_id]

    def start(self) -> int:
        return 0

    def cancel(self) -> bool:
        return False


NEVER = ("pending", "Dependency, job 8")


@pytest.mark.parametrize(
    ("teacher", "restarts", "why"),
    [
        (("pending", "JobHeldUser, job 7"), True, "held by SLURM: JobHeldUser"),
        (("pending", "BadConstraints, job 7"), False, "held by SLURM: BadConstraints"),
        (("pending", "launch failed requeued held, job 7"), False, "held by SLURM: launch failed requeued held"),
        (("pending", "Priority, job 7"), False, ""),
        (("running", "job 7"), False, ""),
        (("", ""), False, ""),  # SLURM does not answer
        (None, False, "they have no job: run the sweep again"),
        (None, True, ""),
    ],
)
def test_what_will_not_start_by_itself(queue: Queue, teacher: tuple[str, str] | None, restarts: bool, why: str) -> None:
    """Students that wait for their teacher's job do not count."""
    jobs = Jobs(bbbb=NEVER, **({"aaaa": teacher} if teacher else {}))
    assert why_blocked(queue, jobs, restarts) == why
    record(queue, "aaaa")
    assert why_blocked(queue, jobs, restarts) == "", "now the student's job can start"


def test_a_plan_says_what_would_be_run_and_a_wrong_command_is_refused(tmp_path: Path) -> None:
    sweep = ("sweep", "benchmarks/digits_pairs.yaml", "--plan", "--results", tmp_path / "results")
    assert f"stuck, this runs: {TELL}\n" in run_command(*sweep, "--notify", TELL).out
    assert run_command(*sweep, "--notify", " ").error.startswith("--notify: expected a command for the shell, such as")
    assert "--notify: expected a command for the shell, which says: " in run_command(*sweep, "--notify", "a '").error
    (profile := tmp_path / "big.yaml").write_text("partition: gpu\nnotify: mail me\n")
    assert "stuck, this runs: mail me\n" in run_command(*sweep, "--cluster", profile).out
    assert "stuck, this runs: tell\n" in run_command(*sweep, "--cluster", profile, "--notify", "tell").out
    profile.write_text("notify: mail 'me\n")
    refused = run_command(*sweep, "--cluster", profile).error
    assert refused.startswith(f"{profile}:1: notify: expected a command for the shell, which says: ")


def test_the_script_of_the_page_sends_the_summary_as_json(queue: Queue, queue_file: Path, tmp_path: Path) -> None:
    """A program stands in for curl."""
    script = (REPO / "docs" / "slurm.md").read_text().split("```sh\n#!/bin/sh\n")[1].partition("```")[0]
    (tmp_path / "tell.sh").write_text(f"#!/bin/sh\nHOME=.\nPATH=.:$PATH\n{script}")
    (tmp_path / "curl").write_text('#!/bin/sh\ncat > sent; for last in "$@"; do :; done; echo "$last" > address\n')
    (tmp_path / ".webhook-address").write_text("https://example.org/a b\n")
    for name in ("tell.sh", "curl"):
        (tmp_path / name).chmod(0o755)
    assert queue.notify
    notify = replace(queue.notify, command="./tell.sh", sweep='it\'s "quoted"')
    replace(queue, notify=notify).write(queue_file)
    record(queue, "aaaa", "bbbb")
    notification.tell(queue_file)
    assert json.loads((tmp_path / "sent").read_text())["text"].startswith('kd: it\'s "quoted" on cluster big: all done')
    assert (tmp_path / "address").read_text() == "https://example.org/a b\n"

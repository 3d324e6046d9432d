"""Owners and permissions: new files follow the umask, locks end with their process, and nothing of others is run."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.errors import UserError
from harness.store import files, live_curves, ownership
from harness.store.locks import Lock, is_locked
from harness.store.store import Store
from slurm import local, snapshot
from slurm.profiles import Profile, Resources
from slurm.queue import Queue, cancelled_file, own_queue_file
from slurm.submission import Submission
from tests.support.cli import run_command

PAIR = "{teacher: digits_net_w8, student: digits_net_w4}"
SWEEP = f"{{dataset: digits, recipe: digits_quick, pairs: [{PAIR}], methods: [kd], seeds: 1}}"
# A process with the command line of a dispatcher or a fork server.
IMPOSTOR = [sys.executable, "-c", "import time; time.sleep(60)", "-m"]


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files to another user")


@pytest.fixture(params=[0o002, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def queue_file(tmp_path: Path) -> Path:
    """The queue of a planned sweep, of one user."""
    (tmp_path / "s.yaml").write_text(SWEEP)
    store = Store(tmp_path / "results")
    path = own_queue_file(store, "s", ["a"])
    Queue(str(store.root), (), 1, 1, None, {}, None).write(path)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_follow_the_umask_whatever_library_writes_them(tmp_path: Path, umask: int) -> None:
    tensors = {"t": torch.zeros(2)}
    files.replace(tmp_path / "folder" / "weights", lambda path: save_file(tensors, path))
    files.write_once(tmp_path / "folder" / "once", lambda path: save_file(tensors, path))
    files.replace_json(tmp_path / "folder" / "json", 1)
    assert {mode(path) for path in (tmp_path / "folder").iterdir()} == {0o666 & ~umask}
    assert mode(tmp_path / "folder") == 0o777 & ~umask


def test_what_says_and_holds_code_is_written_by_its_owner_alone(tmp_path: Path, umask: int) -> None:
    queue = Queue(str(tmp_path / "results"), (), 1, 1, None, {}, None)
    path = own_queue_file(Store(tmp_path / "results"), "s", ["a"])
    queue.write(path)
    assert mode(path) == 0o644 & ~umask and mode(path.parent) == 0o777 & ~umask
    assert Queue.read_own(path) == queue
    copy = snapshot.take_snapshot(tmp_path / "code", [])
    assert {mode(p) & 0o022 for p in (copy, *copy.rglob("*"))} == {0} and mode(copy.parent) == 0o777 & ~umask
    assert os.umask(umask) == umask, "as before"


def test_a_queue_that_others_can_have_written_starts_nothing(queue_file: Path) -> None:
    queue_file.chmod(0o664)
    with pytest.raises(UserError, match="with mode 664: jobs start only by a file that you alone can write to"):
        Queue.read_own(queue_file)
    queue_file.chmod(0o644)
    moved = queue_file.parents[2] / "other" / "queues" / queue_file.name
    moved.parent.mkdir(parents=True)
    queue_file.rename(moved)
    with pytest.raises(UserError, match="of the store '.*; run the sweep again"):
        Queue.read_own(moved)


def test_users_have_queues_of_their_own(queue_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(queue_file.parents[1])
    assert own_queue_file(store, "s", ["a"]) == queue_file != own_queue_file(store, "s", ["b"])
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert own_queue_file(store, "s", ["a"]) != queue_file


def test_a_copy_of_the_code_that_others_can_write_to_is_not_run(tmp_path: Path) -> None:
    first = snapshot.take_snapshot(tmp_path, [])
    assert snapshot.take_snapshot(tmp_path, []) == first
    (first / "harness" / "sweep.py").chmod(0o666)
    second = snapshot.take_snapshot(tmp_path, [])
    assert second.name == f"{first.name}-{os.geteuid()}" and snapshot.take_snapshot(tmp_path, []) == second
    second.chmod(0o777)
    with pytest.raises(UserError, match="others can write to it: remove it, or use a store of your own"):
        snapshot.take_snapshot(tmp_path, [])


@pytest.mark.parametrize("planted", ["jobs", "jobs/1_submitted.pkl", "code", "code/harness/x.py", ""])
@pytest.mark.parametrize("owned", [True, pytest.param(False, marks=as_root)])
def test_a_job_whose_code_others_can_write_to_ends_before_python_starts(
    tmp_path: Path, planted: str, owned: bool
) -> None:
    jobs, code = tmp_path / "jobs", tmp_path / "code"
    (code / "harness").mkdir(parents=True)
    jobs.mkdir()
    for path in (jobs / "1_submitted.pkl", jobs / "log", code / "harness" / "x.py"):
        path.touch()
    (jobs / "log").chmod(0o666)
    lines = Submission("s", jobs, 1, Profile(), Resources(), [str(code)], [], "", 1, 1)._private_setup()
    if planted and owned:
        (tmp_path / planted).chmod(0o775)
    elif planted:
        os.chown(tmp_path / planted, 4001, -1)
    done = subprocess.run(["sh", "-c", "\n".join(["umask 077", *lines, "umask"])], capture_output=True, text=True)
    refusal = f"refused: others can write to this job's code: {tmp_path / planted}\n"
    assert done.stdout == (refusal if planted else f"{ownership.current_umask():04o}\n"), done
    assert done.returncode == bool(planted)


@pytest.mark.parametrize(
    "place, bits, said",
    [
        ("results", 0o755, ""),
        ("results", 0o777, "everyone"),
        ("results/runs", 0o757, "everyone"),
        ("results", 0o775, "group "),
        (".", 0o777, "everyone"),
        (".", 0o1777, ""),
    ],
)
def test_who_else_can_write_to_a_store_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, bits: int, said: str
) -> None:
    monkeypatch.setattr(ownership, "_is_own_group", lambda gid: False)
    root = tmp_path / "above" / "results"
    (root / "runs").mkdir(parents=True)
    (root.parent / place).chmod(bits)
    note = ownership.writers_note(root)
    assert note.startswith(f"note: {said}") if said else note == ""
    not_there_yet = ownership.writers_note(root.parent / "new")
    assert bool(not_there_yet) == bool(said and place == ".")


def test_a_lock_ends_with_its_process_although_a_fork_lives_on(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    ready, write = os.pipe()
    if (parent := os.fork()) == 0:
        lock.acquire()
        if (child := os.fork()) == 0:
            time.sleep(30)
            os._exit(0)
        os.write(write, str(child).encode())
        time.sleep(30)
        os._exit(0)
    child = int(os.read(ready, 100))
    assert is_locked(lock.path), "the child's end of it releases nothing"
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    try:
        assert not is_locked(lock.path)
    finally:
        os.kill(child, signal.SIGKILL)


def test_nothing_is_written_through_a_link_that_others_may_have_put_there(queue_file: Path) -> None:
    store, own = Store(queue_file.parents[1]), queue_file.parents[2] / "own"
    own.write_text("own")
    store.run("a").mkdir(parents=True)
    opened = (local.lock_of(queue_file), queue_file.with_suffix(".log"), store.run("a") / "attempts.jsonl")
    for path in (*opened, store.live_curves("a")):
        path.symlink_to(own)
    for write in (
        Lock(local.lock_of(queue_file)).acquire,
        local.Local(queue_file).start,
        partial(store.add_attempt, "a", log=""),
    ):
        with pytest.raises(OSError, match="symbolic links"):
            write()
    live_curves.add_epoch(store, "a", 1, {})  # ends no run
    assert own.read_text() == "own"


def test_who_watches_a_queue_writes_nothing(queue_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk that is full of another user's quota is not this user's."""
    monkeypatch.setattr(files, "is_disk_full", lambda folder: pytest.fail(f"writes to {folder}"))
    watched = run_command("status", queue_file.parents[2] / "s.yaml", "--results", queue_file.parents[1], "--watch")
    assert watched.code == 0 and "nothing trains the remaining" in watched.err, watched


@as_root
@pytest.mark.parametrize("words", [(), ("--json",), ("--watch",)])
def test_a_damaged_queue_of_another_user_hides_no_states(queue_file: Path, words: tuple[str, ...]) -> None:
    queue_file.write_text("{")
    status = ("status", queue_file.parents[2] / "s.yaml", "--results", queue_file.parents[1], *words)
    assert run_command(*status).error == f"{queue_file}: damaged: not JSON"
    os.chown(queue_file, 4001, 4001)
    assert f"note: {queue_file}: damaged: not JSON; left out" in (done := run_command(*status)).err and done.code == 0


def test_a_link_to_what_cannot_be_looked_at_hides_no_writer(tmp_path: Path) -> None:
    (tmp_path / "runs.parquet").symlink_to("x" * 300)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert "everyone" in ownership.writers(tmp_path)


def test_cancel_ends_a_queues_processes_and_none_that_a_file_names(queue_file: Path) -> None:
    store = Store(queue_file.parents[1])
    victim = subprocess.Popen(["sleep", "60"], start_new_session=True)
    other = subprocess.Popen([*IMPOSTOR, "slurm.local", "/another/queue.json"], start_new_session=True)
    own = [
        subprocess.Popen([*IMPOSTOR, *words, str(queue_file)], start_new_session=True)
        for words in (["slurm.local"], ["slurm.fork_server", "7"])
    ]
    local.lock_of(queue_file).write_text(f"{victim.pid} host")
    try:
        with Lock(local.lock_of(queue_file)):  # as a dispatcher on another machine does
            with pytest.raises(UserError, match=r"\.json: runs on 'host', and not as this user here: cancel it there"):
                local.Local(queue_file).cancel()
        assert [process.wait(10) for process in own] == [-signal.SIGKILL] * 2
        assert not local.Local(queue_file).cancel() and store.root.exists()
        assert victim.poll() is None and other.poll() is None
    finally:
        for process in (victim, other, *own):
            process.kill()
            process.wait()


def test_a_refused_cancel_leaves_the_sweep_restartable(queue_file: Path) -> None:
    results = queue_file.parents[1]
    words = (results.parent / "s.yaml", "--results", results, "--cancel")
    with Lock(local.lock_of(queue_file)):
        assert "cancel it there" in run_command("status", *words).error
        assert not cancelled_file(queue_file).exists()
    assert run_command("status", *words).err == "nothing is running\n" and cancelled_file(queue_file).exists()
    with Lock(local.lock_of(queue_file)):
        run_command("status", *words)
    assert cancelled_file(queue_file).exists(), "of an earlier cancellation"

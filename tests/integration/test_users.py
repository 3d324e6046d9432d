"""Several people on one store, with real uids: what docs/slurm.md promises them."""

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.planning.plan import plan_sweep
from harness.store.store import Store
from slurm import local
from slurm.queue import cancelled_file
from tests.support import users
from tests.support.users import Session, User

pytestmark = pytest.mark.skipif(bool(users.missing()), reason=users.missing())
SWEEP = """
name: NAME
dataset: {name: digits, train_subset: 60}
recipe: {base: digits_quick, epochs: 1, batch_size: 32}
methods: METHODS
pairs: [{teacher: digits_net_w8, student: digits_net_w4}]
seeds: 1
"""
ALICE, BOB = User(4001), User(4002)
READER = User(4003, umask=0o022, in_group=False)
NOTE = "note: group 4100 "  # and the other, if the folders are theirs


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """A folder in which two users have run sweeps of common runs, at the same time."""
    with users.shared_folder() as folder:
        for name, methods in (("one", "[kd]"), ("two", "[kd, student]")):
            (folder / f"{name}.yaml").write_text(SWEEP.replace("NAME", name).replace("METHODS", methods))
        both = [
            user.command("sweep", file, "--results", "results", cwd=folder)
            for user, file in ((ALICE, "one.yaml"), (BOB, "two.yaml"))
        ]
        for process in both:
            done = users.result(process)
            assert done.code == 0, done.err
            assert "can write to" in done.err and "your jobs run no code that they could write to" in done.err
        yield folder


def test_overlapping_sweeps_train_each_run_once_and_leave_all_to_both(shared: Path) -> None:
    """A run learns from a teacher that another user may have trained."""
    store = Store(shared / "results")
    assert [len(store.attempts(k)) for k in store.done_ids()] == [1, 1, 1]
    for path in store.root.rglob("*"):
        by_owner = path.parent.name == "queues" and path.suffix == ".json"
        expected = 0o2775 if path.is_dir() else 0o644 if by_owner else 0o664
        assert stat.S_IMODE(path.lstat().st_mode) == expected and path.lstat().st_gid == users.GROUP, path


def test_who_can_only_read_reads_all_and_writes_nothing(shared: Path) -> None:
    run_id = min(Store(shared / "results").done_ids())
    with Session(READER, shared, read_only=shared / "results") as reader:
        for words in (
            ["status"],
            ["status", "two.yaml"],
            ["status", "two.yaml", "--json"],
            ["status", "two.yaml", "--watch"],
            ["status", "two.yaml", "--failures"],
            ["status", "two.yaml", "--logs", run_id],
            ["report"],
            ["report", "two.yaml", "--paper"],
            ["leaderboard", "--out", f"/tmp/{shared.name}.html"],
            ["verify"],
            ["sweep", "two.yaml", "--plan"],
        ):
            done = reader.run(*words, "--results", "results")
            assert done.code == 0 and "rror" not in done.err, (words, done)
        refused = reader.run("sweep", "two.yaml", "--results", "results", "--set", "seeds=2", "--detach")
        assert refused.code == 2 and refused.err.endswith(": its file system is read-only\n"), refused
    Path(f"/tmp/{shared.name}.html").unlink()


def test_only_its_owner_cancels_a_queue_and_no_number_in_a_file_is_signalled(shared: Path) -> None:
    """The number stands in a file of the lock that both may write to."""
    two, one = (Store(shared / "results").queues(name)[-1] for name in ("two", "one"))
    words = ["-c", "import time; time.sleep(60)", "-m", "slurm.local", two]
    by_bob = BOB.start(sys.executable, *words, cwd=shared)
    by_alice = ALICE.start("sleep", 60, cwd=shared)
    for queue_file in (one, two):
        local.lock_of(queue_file).write_text(f"{by_alice.pid} {os.uname().nodename}")
    try:
        with Session(ALICE, shared) as alice, Session(BOB, shared) as bob:
            refused = alice.run("status", "two.yaml", "--results", "results", "--cancel")
            assert f"{two}: the queue of user 4002, who alone can cancel it\nnothing is running" in refused.err
            assert by_bob.poll() is None and not cancelled_file(two).exists()
            assert "nothing is running" in alice.run("status", "one.yaml", "--results", "results", "--cancel").err
            cancelled = bob.run("status", "two.yaml", "--results", "results", "--cancel")
            assert "ended the jobs of 1 queue" in cancelled.err and NOTE in cancelled.err, cancelled
        assert by_bob.wait(10) and by_alice.poll() is None
    finally:
        for process in (by_bob, by_alice):
            process.kill()
            process.communicate()


def test_a_planted_queue_is_not_started(shared: Path) -> None:
    """A file of the name of one's own queue that another user has put there."""
    (queue_file,) = Store(shared / "results").queues("one")
    planted = queue_file.with_name("planted.json")
    BOB.start("cp", queue_file, planted, cwd=shared).communicate()
    planted.replace(queue_file)
    started = ALICE.start(sys.executable, "-m", "slurm.local", queue_file, cwd=shared)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 1
    assert err == (
        f"{queue_file}: belongs to user 4002, with mode 644: jobs start only by a file that you alone can "
        "write to; run the sweep again\n"
    )


def test_where_another_lets_nobody_write_nothing_is_started(shared: Path) -> None:
    """A job would train, and then fail the other's run because it cannot write the record, or leave no table."""
    with Session(BOB, shared) as bob:
        for name in ("records", "runs/{run_id}", "queues", "tables/two"):
            store = shared / name.replace("/", "-")
            run_id = next(iter(plan_sweep(shared / "two.yaml", store).plan.runs))
            folder = store / name.format(run_id=run_id)
            ALICE.start("mkdir", "-p", folder.parent, cwd=shared).communicate()
            User(4001, umask=0o022).start("mkdir", folder, cwd=shared).communicate()
            refused = bob.run("sweep", "two.yaml", "--results", store, "--detach", "--check")
            assert refused.code == 2 and not list(store.rglob("*.json"))
            assert refused.err == (
                f"error: {folder}: you may not write to it: it belongs to user 4001; `umask 002` shares a store\n"
            )


def test_a_lock_that_one_can_only_read_is_taken_all_the_same(shared: Path) -> None:
    lock = shared / "results" / "readable"
    lock.touch(mode=0o644)
    program = f"from harness.store.locks import *; from pathlib import Path; print(Lock(Path({str(lock)!r})).acquire())"
    out, err = BOB.start(sys.executable, "-c", program, cwd=shared).communicate()
    assert (out, err) == ("True\n", "")

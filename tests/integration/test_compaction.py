"""Compaction while processes are killed at every step and at random, and others read all the time."""

import itertools
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.errors import UserError
from harness.store import compaction, parts, records
from harness.store.locks import Lock
from harness.store.store import Store
from tests.support.bench import forkserver
from tests.support.comparisons import invented_id, row

DATASETS = ("cifar100", "digits")
OS_STEPS = ("rename", "replace", "link", "unlink", "rmdir", "fsync", "symlink", "mkdir")  # functions of os


def run_id(i: int) -> str:
    return invented_id(i)


def record(i: int) -> dict[str, Any]:
    """Return a record in which every value shows its run, so that a torn or mixed-up row is noticed."""
    curves = [{"epoch": e, "name": "test_top1", "value": float(i)} for e in range(1, 20)]
    return row(run_id(i), float(i), float(i), dataset=DATASETS[i % 2]) | {"curves": curves, "seed": i}


def check(table: pa.Table) -> set[str]:
    """Check that rows are whole and unique, and return their run ids."""
    seen = Counter[str]()
    for stored in table.to_pylist():
        i = stored["seed"]
        assert stored["run_id"] == run_id(i) and stored["last_top1"] == float(i)
        assert stored["dataset"] == DATASETS[i % 2]
        assert len(stored["curves"]) == 19 and {point["value"] for point in stored["curves"]} == {float(i)}
        seen[stored["run_id"]] += 1
    assert not seen or max(seen.values()) == 1, "a row exists twice"
    return set(seen)


def read_with_pyarrow(store: Store) -> set[str]:
    """Read the store with pyarrow only, as a program that does not know the harness would."""
    return check(pq.read_table(store.all_runs)) if store.all_runs.exists() else set()


def dying_at(step: int) -> Iterator[Any]:
    """Yield patches that kill this process just before file operation number ``step``."""
    count = itertools.count()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(count) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in OS_STEPS:
        yield mock.patch.object(os, name, counted(getattr(os, name)))
    for owner, name in ((pq.ParquetWriter, "write_table"), (pq.ParquetWriter, "close"), (Path, "write_text")):
        yield mock.patch.object(owner, name, counted(getattr(owner, name)))


def compact_and_die(root: str, step: int) -> None:
    for patch in dying_at(step):
        patch.start()
    compaction.compact(Store(Path(root)), 0)


def test_a_kill_at_any_step_loses_and_duplicates_nothing(tmp_path: Path) -> None:
    """The store has parts that are linked and merged, and records that are loose, compacted and both."""
    before = Store(tmp_path / "before")
    for start, end in ((0, 12), (12, 15)):
        for i in range(start, end):
            records.write_record(before, record(i))
        compaction.compact(before, 0)
    for i in (15, 16):
        records.write_record(before, record(i))
    compaction.compact(before)  # the files stay for the grace period
    for i in (17, 18, 19):
        records.write_record(before, record(i))
    everything, compacted = {run_id(i) for i in range(20)}, {run_id(i) for i in range(17)}
    assert check(records.read_records(before, everything)) == everything and read_with_pyarrow(before) == compacted

    for step in range(1000):
        store = Store(Path(shutil.copytree(before.root, tmp_path / "store", symlinks=True)))
        process = forkserver.Process(target=compact_and_die, args=(str(store.root), step))
        process.start()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        assert store.done_ids() == everything == check(records.read_records(store, everything)), step
        with suppress(FileNotFoundError):  # the link names a removed generation until the next compaction
            assert read_with_pyarrow(store) in (compacted, everything), step
        compaction.compact(store, 0)
        assert store.done_ids() == everything == check(records.read_records(store, everything)), step
        assert read_with_pyarrow(store) == everything, step
        assert not list(store.records.iterdir()) and {p.name for p in store.compact.iterdir() if p.name != "lock"} == {
            os.path.basename(store.all_runs.resolve())
        }, f"{step}: something is left behind"
        shutil.rmtree(store.root)
        if process.exitcode == 0:
            break
    assert step > 30, "the steps were not counted"


# at random -----------------------------------------------------------------------------------------------------------

WRITERS = 64


def write_on(root: str, writer: int) -> None:
    """Write records, every fifth of which other writers write too, and note each written run in a file."""
    store, notes = Store(Path(root)), os.open(Path(root) / "noted", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    chance = random.Random(writer)
    for n in itertools.count():
        i = 2 * n if n % 5 == 0 else 2 * (WRITERS * n + writer) + 1
        if records.write_record(store, record(i)):
            os.write(notes, f"{run_id(i)}\n".encode())
        # Ever slower, so that 64 writers leave time to readers and compactors on any machine.
        next_write = time.monotonic() + chance.uniform(0.0, 4.0) * (1 + n)
        while time.monotonic() < next_write:
            if (Path(root) / "stop").exists():  # a process that is killed while it asks an Event would leave it locked
                return
            time.sleep(0.2)


def noted(store: Store) -> set[str]:
    with suppress(FileNotFoundError):
        return set((store.root / "noted").read_text().split())
    return set()


def read_on(root: str, reads: Any) -> None:
    store = Store(Path(root))
    while not (Path(root) / "no more").exists():
        known = noted(store)
        assert known <= store.done_ids(), "a noted run is not done"
        assert known <= check(records.read_records(store, known | store.done_ids())), (
            "the row of a noted run is missing"
        )
        with suppress(FileNotFoundError):  # without a grace period a reader may be too late, and notices it
            read_with_pyarrow(store)
        reads.value += 1


def compact_on(root: str, locked: bool) -> None:
    if not locked:
        Lock.acquire = lambda self: True  # type: ignore[method-assign]
    parts._GROUP_ROWS = 50
    pause = 0.05
    while True:
        began = time.monotonic()
        try:
            compaction.compact(Store(Path(root)), 0)
            pause = 0.05
        except (FileNotFoundError, UserError):
            pause = max(2 * pause, time.monotonic() - began)
        except OSError:
            if locked:
                raise
            # Two remove each other's unfinished files until one of them waits as long as the other takes.
            pause = max(2 * pause, time.monotonic() - began)
        time.sleep(random.uniform(0.0, pause))


def generation_of(store: Store) -> int:
    newest = store.record_index().generation
    return newest.number if newest else 0


@pytest.mark.parametrize("locked", [True, False], ids=["locked", "lock lost"])
def test_64_writers_and_compactors_killed_at_random(tmp_path: Path, locked: bool) -> None:
    """Without the lock, concurrent compactions only disturb each other."""
    store, chance = Store(tmp_path), random.Random(locked)
    store.compact.mkdir()
    store.compact_lock.touch()
    reads = forkserver.Value("l", 0)
    writers = [forkserver.Process(target=write_on, args=(str(tmp_path), i)) for i in range(WRITERS)]
    readers = [forkserver.Process(target=read_on, args=(str(tmp_path), reads)) for _ in range(2)]

    def compactor() -> Any:
        process = forkserver.Process(target=compact_on, args=(str(tmp_path), locked))
        process.start()
        return process

    compactors: list[Any] = []
    try:
        for process in (*writers, *readers):
            process.start()
        compactors += (compactor(), compactor())
        doomed = chance.sample(writers, WRITERS // 3)
        reached, read, patience, generations = 0, 0, 0.2, 5 if locked else 2
        while doomed or read < 6 or reached < generations:
            assert all(reader.is_alive() for reader in readers)
            pause_until = time.monotonic() + chance.uniform(0.0, patience)
            while time.monotonic() < pause_until and (reads.value == read or generation_of(store) == reached):
                time.sleep(0.05)
            if doomed:
                doomed.pop().kill()
            victim = chance.randrange(len(compactors))
            compactors[victim].kill()
            compactors[victim].join()
            compactors[victim] = compactor()
            before = reached, read
            reached, read = generation_of(store), reads.value
            # A busy machine needs more time per generation and per read.
            patience = max(0.2, patience / 2) if reached > before[0] and read > before[1] else 1.5 * patience
        (tmp_path / "stop").touch()
        for process in writers:
            process.join()
        for process in compactors:
            process.kill()
            process.join()
        (tmp_path / "no more").touch()
        for process in readers:
            process.join()
    finally:  # a failed test must not leave 66 processes to the tests after it
        for process in (*writers, *readers, *compactors):
            if process.is_alive():
                process.kill()
    assert [process.exitcode for process in readers] == [0, 0]
    ends = Counter(process.exitcode for process in writers)
    assert ends == {0: WRITERS - WRITERS // 3, -signal.SIGKILL: WRITERS // 3}

    result = noted(store)
    in_store = check(records.read_records(store, store.done_ids()))
    assert result <= in_store == store.done_ids()
    compaction.compact(store, 0)
    assert check(records.read_records(store, in_store)) == in_store == read_with_pyarrow(store) == store.done_ids()
    assert not store.loose_ids()

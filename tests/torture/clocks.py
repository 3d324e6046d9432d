"""Clocks that jump by hours or days, forwards and backwards, under commands and jobs; every process has its own."""

import contextlib
import os
import random as random_numbers
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pyarrow as pa

from harness.planning.cost import history
from harness.planning.plan import plan_sweep
from harness.reporting.comparison import Contents
from harness.reporting.tables import table_folder
from harness.store import compaction, generations, leftovers, records
from harness.store.store import Store
from harness.training.recorder import JobStart
from slurm import entry
from tests.support.comparisons import invented_id, row
from tests.torture import Outcome

HOUR = 3600.0
JUMPS = (-400 * 24 * HOUR, -26 * HOUR, -HOUR, -1.0, 0.0, 1.0, HOUR, 26 * HOUR, 400 * 24 * HOUR)
RUN = invented_id(0)
SWEEP = """
name: tiny
dataset: digits
recipe: digits_quick
methods: [student, kd]
pairs: [{teacher: digits_net_w8, student: digits_net_w4}]
seeds: 2
"""


def trials(folder: Path, random: random_numbers.Random) -> Iterator[Outcome]:
    """Yield what became of a store after each sequence of jumps."""
    faults: list[Callable[[Path, random_numbers.Random], Outcome]] = [
        _attempts, _compaction, _temporary_files, _durations, _tables,
    ]  # fmt: skip
    while True:
        for fault in random.sample(faults, len(faults)):
            (trial := folder / "trial").mkdir()
            yield fault(trial, random)
            shutil.rmtree(trial)


@contextlib.contextmanager
def _jump(random: random_numbers.Random) -> Iterator[float]:
    """Set the time of day wrong, and yield by how many seconds; the steady clock goes on."""
    offset, now = random.choice(JUMPS) + random.uniform(-1, 1), time.time
    with mock.patch.object(time, "time", lambda: now() + offset):
        yield offset


def _attempts(folder: Path, random: random_numbers.Random) -> Outcome:
    """Start a run again and again, as jobs whose machines' clocks differ, and retry it when it has failed."""
    store, log = Store(folder), str(folder / "log.out")
    store.run(RUN).mkdir(parents=True)
    limit, since = random.randint(2, 5), 0
    for number in range(1, 20):
        with _jump(random), contextlib.redirect_stdout(None):
            entry.fail_after_max_attempts(store, (RUN,), limit, log)
        if (failed := bool(store.failed_ids())) != (since >= limit):
            return Outcome("", f"attempts: {since} of {limit} made, but failed is {failed}")
        if failed or random.random() < 0.1:
            with _jump(random):
                store.write_failure(RUN, "code", "cause", "", log)
            with _jump(random):  # `sweep --retry-failed`, an hour later or at once
                store.archive_failure(RUN)
            since = 0
        with _jump(random):
            if (count := store.add_attempt(RUN, log=log, pid=number)) != number:
                return Outcome("", f"attempts: {count} counted after {number}")
        since += 1
        if (counted := len(store.attempts_since_failure(RUN))) != since:
            return Outcome("", f"attempts: {counted} since the last failure, not {since}")
    return Outcome("counted right")


def _compaction(folder: Path, random: random_numbers.Random) -> Outcome:
    """Compact under wrong clocks; what was replaced stays for as long as other machines may see old listings."""
    store = Store(folder)
    _write_records(store, 5)
    before = records.read_records(store, store.done_ids())
    _age(list(store.records.iterdir()), random)
    with _jump(random):
        compaction.compact(store, grace_s=60.0)
    if len(store.loose_ids()) != 5:
        return Outcome("", "compaction removed record files that other machines may still read")
    generation = generations.newest_generation(store.compact)
    assert generation
    index = generation.folder / generations.INDEX
    os.utime(index, (index.stat().st_mtime - 100,) * 2)  # so much later
    with _jump(random):
        compaction.compact(store, grace_s=60.0)
    if store.loose_ids() or records.read_records(store, store.done_ids()) != before:
        return Outcome("", "compaction left replaced files, or lost records")
    return Outcome("compacted right")


def _temporary_files(folder: Path, random: random_numbers.Random) -> Outcome:
    """Remove leftovers under wrong clocks: what a living process writes stays, what is old goes."""
    store = Store(folder)
    store.queue("x").parent.mkdir()
    alive, dead = (store.queue("x").with_name(f".x-{name * 8}.json.{name * 8}.tmp") for name in "ab")
    for path in (alive, dead):
        path.touch()
    written = dead.stat().st_mtime - leftovers.OLD_S - 10
    os.utime(dead, (written, written))
    with _jump(random):
        leftovers.remove_leftovers(store)
    if not alive.exists():
        return Outcome("", "the temporary file of a living process was removed")
    return Outcome("kept and removed right", "an old temporary file is still there" if dead.exists() else "")


def _durations(folder: Path, random: random_numbers.Random) -> Outcome:
    """Set the clock during a job: the time that it took, by which sweeps are estimated, stays right."""
    with _jump(random):
        start = JobStart.of(time.monotonic() - 10)
    with _jump(random):
        took = start.finished_at() - start.started_at()
    rows = [row(RUN, 1.0, 1.0, started_at=start.started_at(), finished_at=start.finished_at(), cost_total_s=9.0)]
    (seconds,) = history.jobs(pa.Table.from_pylist(rows).select(history.JOB_COLUMNS)).seconds
    if not 10 <= took.total_seconds() < 20 or not 10 <= seconds < 20:
        return Outcome("", f"a job of 10 s took {took}, or {seconds} s")
    return Outcome("measured right")


def _tables(folder: Path, random: random_numbers.Random) -> Outcome:
    """Write records whose files' times are wrong, and look whether tables under wrong clocks have them."""
    (folder / "sweep.yaml").write_text(SWEEP)
    planned = plan_sweep(folder / "sweep.yaml", folder / "results")
    store, contents, shown = planned.store, Contents.of("tiny", planned.plan), planned.store.table_folder("tiny")
    for run_id, run in planned.plan.runs.items():
        score = random.uniform(10, 90)
        values = row(run_id, score, score, dataset="digits", science=run.science.text, seed=run.science.seed)
        records.write_record(store, {k: v for k, v in values.items() if k != "schema_version"})
        _age([store.record(run_id)], random)
        with _jump(random):
            if not table_folder.tables_are_current(contents, store, shown):
                table_folder.write_tables(contents, store, shown)
    table = (shown / "table.md").read_text()
    table_folder.write_tables(contents, store, shown)
    if table != (shown / "table.md").read_text():
        return Outcome("", "a table is not current, though it was looked whether it is")
    return Outcome("shown right")


def _write_records(store: Store, count: int) -> None:
    for i in range(count):
        values = row(invented_id(i), float(i), float(i), dataset="digits", seed=i)
        records.write_record(store, {k: v for k, v in values.items() if k != "schema_version"})


def _age(paths: list[Path], random: random_numbers.Random) -> None:
    """Give files times as machines with other clocks, and copies that keep times, do."""
    for path in paths:
        now = path.stat().st_mtime + random.choice(JUMPS)
        os.utime(path, (now, now))

"""Processes killed at a random moment, or right before one of their file operations, and then run again."""

import os
import random as random_numbers
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from harness.planning.plan import Planned, plan_sweep
from harness.reporting.comparison import Contents
from harness.reporting.tables import table_folder
from harness.store import compaction, leftovers, records
from harness.store.store import Store
from harness.training.job import run_job
from harness.training.job_order import JobOrder
from slurm.queue import Queue, QueuedJob
from tests.support.bench import forkserver
from tests.support.cli import run_command
from tests.support.comparisons import invented_id, row
from tests.torture import Outcome

SWEEP = """
name: tiny
dataset: {name: digits, train_subset: 40}
recipe: {base: digits_quick, epochs: 2, batch_size: 16}
methods: {student: {}, kd: {}}
pairs: [{teacher: digits_net_w8, student: digits_net_w4}]
seeds: 1
"""
RESULTS = ("run_id", "status", "last_top1", "last_loss", "best_top1", "best_epoch", "curves", "weights_sha256")
OPERATIONS = {"open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.symlink", "os.utime"}
SECONDS = 1.0  # a job's time, about
MANY = 10_000  # more operations than any function here has

pa.scalar(0)  # imports pandas, before the processes are forked


def trials(folder: Path, random: random_numbers.Random) -> Iterator[Outcome]:
    """Yield what became of a store after each kill of a job, a compaction, a report, a leaderboard or a submission."""
    forkserver.set_forkserver_preload([__name__])  # of no effect where the server runs already
    finished = _finished_store(folder)
    many = _store_of_records(folder / "many")
    shutil.copytree(many.root, folder / "compacted", symlinks=True)
    operations = _operations(_compact, folder / "compacted")
    faults: list[Callable[[Path], Outcome]] = []
    faults += [lambda trial: _killed_job(finished, trial, random)] * 2
    faults += [
        lambda trial: _killed_compaction(many, operations, trial, random),
        lambda trial: _killed_writer(finished, trial, random),
    ]
    while True:
        for fault in random.sample(faults, len(faults)):
            trial = folder / "trial"
            yield fault(trial)
            shutil.rmtree(trial)


# the processes that are killed -----------------------------------------------------------------------------------


def _in_process(function: Callable[..., None], root: Path, kill_at: int, seconds: float | None = None) -> bool:
    """Call a function in a process that dies before its file operation ``kill_at`` in a store, or after some seconds;
    return whether it died.
    """
    process = forkserver.Process(target=_call, args=(function, str(root), kill_at))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    assert process.exitcode in (0, -signal.SIGKILL), f"{function.__name__}: exit code {process.exitcode}"
    return process.exitcode != 0


def _call(function: Callable[..., None], root: str, kill_at: int) -> None:
    os.environ.update(CUDA_VISIBLE_DEVICES="", KD_CHECKPOINT_SECONDS="0")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(null, stream)
    operations = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal operations
        if event in OPERATIONS and any(isinstance(a, str | Path) and str(a).startswith(root) for a in arguments[:2]):
            if operations == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            operations += 1
            (counter.write(b"."), counter.flush())

    with Path(root).with_suffix(".operations").open("wb") as counter:
        sys.addaudithook(count)
        function(root)


def _operations(function: Callable[..., None], root: Path) -> int:
    """Call a function in a process to its end, and return the number of its file operations in a store."""
    assert not _in_process(function, root, MANY)
    return root.with_suffix(".operations").stat().st_size


def _train(root: str) -> None:
    planned = _planned(Path(root))
    run_job(JobOrder(root, tuple(k for k in planned.plan.runs if k != _teacher(planned)), None, {}, 1))


def _train_teacher(root: str) -> None:
    run_job(JobOrder(root, (_teacher(_planned(Path(root))),), None, {}, 1))


def _compact(root: str) -> None:
    compaction.compact(Store(Path(root)), 0)


def _report(root: str) -> None:
    planned = _planned(Path(root))
    table_folder.write_tables(Contents.of("tiny", planned.plan), planned.store, planned.store.table_folder("tiny"))


def _leaderboard(root: str) -> None:
    run_command("leaderboard", "--results", root)


def _submit(root: str) -> None:
    planned = _planned(Path(root))
    for run_id, run in planned.plan.runs.items():
        planned.store.write_science(run_id, run.science)
    jobs = [
        QueuedJob.from_sciences({k: planned.plan.runs[k].science for k in pack.run_ids}, pack.needs)
        for pack in planned.plan.packs
    ]
    Queue("/store", tuple(jobs), 1, 1, None, {}, None).write(planned.store.queue("tiny-00000000"))


WRITERS = {_report: "tables/tiny", _leaderboard: "leaderboard.html", _submit: "queues"}  # and what they write

# faults ----------------------------------------------------------------------------------------------------------


class _Finished(NamedTuple):
    """A store of the tiny sweep that was never disturbed, and the number of file operations of each function."""

    store: Store
    open: Path  # the same store before the students were trained
    operations: dict[Callable[..., None], int]
    written: Path  # the same store after the functions of ``WRITERS``


def _killed_job(finished: _Finished, trial: Path, random: random_numbers.Random) -> Outcome:
    """Kill a job up to three times, each time resumed as a sweep does, and compare its end with an undisturbed one."""
    shutil.copytree(finished.open, trial)
    store = Store(trial)
    run_ids, word = finished.store.done_ids(), "not reached"
    for kills_left in range(random.choice((1, 1, 2, 3)), -1, -1):
        leftovers.remove_leftovers(store)
        if store.done_ids() == run_ids:
            break
        kill_at = random.randrange(finished.operations[_train]) if kills_left else MANY
        by_time = kills_left and random.random() < 0.3
        seconds = random.uniform(0, SECONDS) if by_time else None
        if _in_process(_train, trial, MANY if by_time else kill_at, seconds):
            checkpointed = any(store.checkpoints(k).exists() for k in run_ids - store.done_ids())
            word = "nothing lost" if store.done_ids() == run_ids else "resumed" if checkpointed else "begun again"
    leftovers.remove_leftovers(store)
    return Outcome(word, _difference(finished, store) or _left(store))


def _difference(finished: _Finished, store: Store) -> str:
    run_ids = finished.store.done_ids()
    rows = records.read_records(store, store.done_ids(), RESULTS).to_pylist()
    if rows != records.read_records(finished.store, run_ids, RESULTS).to_pylist():
        return f"a job's records after kills: {[r['run_id'] for r in rows]}, or other results"
    for k in run_ids:
        if store.student_weights(k).read_bytes() != finished.store.student_weights(k).read_bytes():
            return f"the weights of {k} differ after kills"
    return ""


def _left(store: Store) -> str:
    """Return what is left of killed processes; empty for nothing."""
    names = [p for p in store.root.rglob("*") if p.suffix in (".tmp", ".gone") or p.name == "checkpoints"]
    names += [store.failure_file(run_id) for run_id in store.failed_ids()]
    return f"left after a kill: {', '.join(str(p.relative_to(store.root)) for p in names)}" if names else ""


def _killed_compaction(many: Store, operations: int, trial: Path, random: random_numbers.Random) -> Outcome:
    """Kill a compaction, compact again, and look for every record."""
    shutil.copytree(many.root, trial, symlinks=True)
    store = Store(trial)
    before = records.read_records(store, store.done_ids())
    died = _in_process(_compact, trial, random.randrange(operations))
    if records.read_records(store, store.done_ids()) != before:
        return Outcome("", "records differ after a compaction was killed")
    leftovers.remove_leftovers(store)
    compaction.compact(store, 0)
    if records.read_records(store, store.done_ids()) != before or store.loose_ids():
        return Outcome("", "records differ, or are not compacted, after a compaction that was killed")
    return Outcome("compacted again" if died else "not reached", _left(store))


def _killed_writer(finished: _Finished, trial: Path, random: random_numbers.Random) -> Outcome:
    """Kill a report, a leaderboard or a submission; every file is whole or missing, and the next call writes it."""
    function, name = random.choice(tuple(WRITERS.items()))
    shutil.copytree(finished.written, trial)
    store, expected = Store(trial), _contents(trial, trial / name)
    shutil.rmtree(trial / name, ignore_errors=True)
    (trial / name).unlink(missing_ok=True)
    died = _in_process(function, trial, random.randrange(finished.operations[function]))
    torn = [path for path, content in _contents(trial, trial / name).items() if content != expected.get(path, content)]
    for path in trial.rglob(".*.tmp"):  # two days go by
        os.utime(path, (time.time() - 2 * leftovers.OLD_S,) * 2, follow_symlinks=False)
    leftovers.remove_leftovers(store)
    assert not _in_process(function, trial, MANY)
    if torn or _contents(trial, trial / name) != expected:
        return Outcome("", f"{function.__name__}: torn by a kill, or other than before it: {torn or name}")
    return Outcome("written again" if died else "not reached", _left(store) or _difference(finished, store))


def _contents(root: Path, path: Path) -> dict[Path, bytes]:
    """Return a file, or a folder's files, with their content, in which a store's place is replaced."""
    paths = [path] if path.is_file() else [p for p in path.rglob("[!.]*") if p.is_file()]
    contents = {p: p.read_bytes().replace(str(root).encode(), b"ROOT") for p in paths}
    return {p: content for p, content in contents.items() if p.suffix != ".parquet"}


# stores ----------------------------------------------------------------------------------------------------------


def _planned(root: Path) -> Planned:
    file = root.with_name("sweep.yaml")
    if not file.exists():
        file.write_text(SWEEP)
    return plan_sweep(file, root)


def _teacher(planned: Planned) -> str:
    return next(k for k, run in planned.plan.runs.items() if run.science.student == "digits_net_w8")


def _finished_store(folder: Path) -> _Finished:
    root, opened = folder / "finished", folder / "open"
    root.mkdir()
    planned = _planned(root)
    operations = {_submit: _operations(_submit, root), _train_teacher: _operations(_train_teacher, root)}
    shutil.copytree(root, opened)
    operations[_train] = _operations(_train, root)
    assert len(planned.store.done_ids()) == len(planned.plan.runs) == 3
    written = folder / "written"
    shutil.copytree(root, written)
    for function in (_report, _leaderboard):
        operations[function] = _operations(function, written)
    return _Finished(planned.store, opened, operations, written)


def _store_of_records(root: Path) -> Store:
    store = Store(root)
    for i in range(12):
        columns = {"dataset": ("digits", "cifar100")[i % 2], "seed": i}
        values = row(invented_id(i), float(i), float(i), **columns)
        records.write_record(store, {k: v for k, v in values.items() if k != "schema_version"})
        if i == 5:
            compaction.compact(store, 0)
    return store

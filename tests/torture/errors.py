"""Errors of file systems: each operation of a command fails in turn, with each errno that a file system may answer.

A command may go on as if nothing had happened, or say the errno and a path in one line; a run may fail and its failure
say the same. Afterwards nothing is lost: the same command without the fault gives what it gives on a whole store.
"""

import errno
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from random import Random
from typing import NamedTuple
from unittest import mock

from harness.errors import UserError
from harness.planning.plan import plan_sweep
from harness.spec.science import Science
from harness.store import compaction, files, generations, json_files, live_curves, records
from harness.store.store import Store
from slurm.local import Dispatcher, lock_of
from slurm.queue import Queue
from tests.support.bench import Bench
from tests.support.cli import CommandResult, run_command
from tests.support.comparisons import row
from tests.support.faults import ERRNOS, Faults, faults
from tests.torture import Outcome

SWEEP = {
    "name": "small",
    "dataset": {"name": "digits", "train_subset": 100},
    "recipe": {"base": "digits_quick", "epochs": 1},
    "methods": {"student": {}, "kd": {}},
    "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4"}],
    "seeds": [0, 1],
}
_ADVICE = ("delete it", "remove it", "move it out", "restore it")  # to nobody whose file cannot be read
_RANDOM = re.compile(r"\b[0-9a-f]{8}\b|[0-9a-f]{16}|[0-9]{10}")  # what names of one kind differ in
_CHANGING = re.compile(r"\b[0-9]+(:[0-9]+)+\b|\b20[0-9-]+ [0-9:]+|\b[0-9.]+ (s|kB|MB)\b|(?<=took ).*")


class Trial(NamedTuple):
    """A call that is tried on a store; ``repeats``: it is made again afterwards, without a fault."""

    name: str
    call: Callable[[Bench], CommandResult]
    repeats: bool = True


def make_store(folder: Path) -> Bench:
    """Return a small sweep's store, with records of invented numbers: half of them compacted, a run failed."""
    bench = Bench(folder, SWEEP)
    folder.mkdir(parents=True)
    planned, store = bench.plan(), bench.store
    runs = {k: run.science for k, run in planned.plan.runs.items()}
    failed = bench.cells()["kd", 1].run_id
    (folder.parent / "failed").write_text(failed)
    file = folder / "sweep.yaml"
    extra = plan_sweep(file, store.root, sets=["seeds=[2]", "methods=[student]"]).plan.runs
    (untrained,) = (k for k, run in extra.items() if run.science.student == "digits_net_w4")
    store.write_science(untrained, extra[untrained].science)
    (folder.parent / "untrained").write_text(untrained)
    done = [k for k in runs if k != failed]
    for k, science in runs.items():
        store.write_science(k, science)
        store.add_attempt(k, log=str(store.jobs / "a" / "log.out"), pid=1, threads=1)
        store.write_progress(k, stage="main", epoch=1, epochs=1, fraction=1.0, top1=50.0)
    for number, k in enumerate(done):
        _write(store, k, runs[k], number)
        if number == 1:
            compaction.compact(store, grace_s=0)
    store.write_failure(failed, "code", "ValueError: invented", "details", str(store.jobs / "a" / "log.out"))
    (store.jobs / "a").mkdir(parents=True)
    (store.jobs / "a" / "log.out").write_text("a line\n")
    for k in done:
        store.checkpoints(k).mkdir()
        store.student_weights(k).write_bytes(b"x" * 100)
    _write_queue(bench, runs)
    bench.call("sweep")
    return bench


def _write(store: Store, run_id: str, science: Science, number: int) -> None:
    columns = {
        "dataset": science.dataset.name, "student": science.student, "method": science.method.use,
        "seed": science.seed, "science": science.text, "pack_size": 1, "threads": 1, "processes": 1, "attempts": 1,
        "teacher": science.teacher.model if science.teacher else None, "teacher_run": None,
        "hardware": "a processor", "host": "a host",
    }  # fmt: skip
    values = row(run_id, 90.0 + number, 91.0 + number, **columns)
    records.write_record(store, {k: v for k, v in values.items() if k != "schema_version"})


def _write_queue(bench: Bench, sciences: dict[str, Science]) -> None:
    from slurm.queue import QueuedJob

    store = bench.store
    jobs = tuple(QueuedJob.from_sciences({k: science}, None) for k, science in sciences.items())
    Queue(str(store.root), jobs, 1, 1, None, {}, None).write(store.queue("small-0123abcd"))


def _command(name: str, *words: str, file: str | None = "sweep.yaml") -> Trial:
    def call(bench: Bench) -> CommandResult:
        head = [str(bench.folder / file)] if file else []
        return run_command(name, *head, "--results", str(bench.folder / "results"), *words)

    return Trial(" ".join((name, *(w for w in words if w.startswith("--")))), call)


def _in_app(function: Callable[[Bench], object]) -> Callable[[Bench], CommandResult]:
    """Return a call of a function whose errors are told as those of a command."""

    def call(bench: Bench) -> CommandResult:
        from harness.console import app

        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err), mock.patch("sys.argv", ["x"]):
            try:
                app.run_command(lambda: print(function(bench) or ""))
            except SystemExit as e:
                return CommandResult(int(e.code or 0), out.getvalue(), err.getvalue())
        raise AssertionError

    return call


def _fresh(bench: Bench) -> str:
    """Return a run that has no record: the failed one."""
    return (bench.folder.parent / "failed").read_text()


def _record(bench: Bench) -> None:
    science = bench.store.read_science(run_id := _fresh(bench))
    _write(bench.store, run_id, science, 9)


def _queue(bench: Bench) -> None:
    path = bench.store.queue("small-0123abcd")
    queue = Queue.read(path)
    queue.write(path)
    assert Queue.read(path) == queue


def _dispatch(bench: Bench) -> None:
    """A dispatcher reads its queue and finds nothing to start."""
    from slurm.local import Lock

    with Lock(lock_of(bench.store.queue("small-0123abcd"))) as acquired:
        assert acquired
        Dispatcher(bench.store.queue("small-0123abcd")).run()


def _progress(bench: Bench) -> None:
    bench.store.write_progress(_fresh(bench), stage="main", epoch=1, epochs=1, fraction=1.0)


def _epoch(bench: Bench) -> None:
    live_curves.add_epoch(bench.store, run_id := _fresh(bench), 1, {"train_ce": 1.0})
    live_curves.read_epochs(bench.store, run_id)


def _attempt(bench: Bench) -> int:
    return bench.store.add_attempt(_fresh(bench), log="a", pid=1, threads=1)


def _failure(bench: Bench) -> None:
    bench.store.archive_failure(run_id := _fresh(bench))
    bench.store.write_failure(run_id, "code", "another", "", "a")


def _train(bench: Bench) -> str:
    """Train a run as a job does; raise what its failure says, or its log where no failure could be written."""
    from harness.training.job import run_job
    from harness.training.job_order import JobOrder

    store, run_id, log = bench.store, (bench.folder.parent / "untrained").read_text(), StringIO()
    if store.failure(run_id):
        store.archive_failure(run_id)
    with redirect_stdout(log):
        run_job(JobOrder(str(store.root), (run_id,), None, {}, 1))
    if run_id in store.done_ids():
        return f"recorded {run_id}"
    failure = store.failure(run_id)
    raise UserError(failure.cause if failure else log.getvalue())


TRIALS = (
    Trial("train", _in_app(_train)),
    Trial("write a record", _in_app(_record)),
    Trial("write and read a queue", _in_app(_queue)),
    Trial("dispatch", _in_app(_dispatch)),
    Trial("note progress", _in_app(_progress)),
    Trial("note an epoch", _in_app(_epoch)),
    Trial("note an attempt", _in_app(_attempt), repeats=False),
    Trial("note a failure", _in_app(_failure)),
    _command("status"),
    _command("status", "--json"),
    _command("status", "--failures"),
    _command("status", "--cancel"),
    _command("sweep", "--plan"),
    _command("sweep"),
    _command("report"),
    _command("report", file=None),
    _command("report", "--format", "csv"),
    _command("leaderboard", file=None),
    _command("verify", file=None),
    _command("compact", "--grace", "0", file=None),
)


def trials(folder: Path, random: Random) -> Iterator[Outcome]:
    """Yield an outcome for each operation of each command and each errno, in random order, again and again."""
    import harness.training.job  # noqa: F401  # what it opens files with can then be made to fail

    for number in itertools.count():
        yield from _one_pass(folder / str(number), random)


def _one_pass(folder: Path, random: Random) -> Iterator[Outcome]:
    whole = make_store(folder / "whole")
    rows = _rows(whole)
    counted: list[tuple[Trial, CommandResult, int, int]] = []
    for trial in TRIALS:
        bench = _copy(whole, folder / "copy")
        with faults(bench.folder) as found:
            expected = _call(trial, bench)
        assert isinstance(expected, CommandResult) and expected.code in (0, 1), (trial.name, expected)
        kinds = {_RANDOM.sub("*", what): (at, what) for at, what in reversed(list(enumerate(found.operations)))}
        both = itertools.product(kinds.values(), ERRNOS)
        counted += [(trial, expected, at, number) for (at, what), number in both if Faults.can(what, number)]
    random.shuffle(counted)
    for trial, expected, at, number in counted:
        bench = _copy(whole, folder / "copy")
        yield attempt(trial, bench, expected, rows, at, number, random.random() < 0.5)


def _copy(whole: Bench, folder: Path) -> Bench:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole.folder, folder, symlinks=True)
    copy = Bench(folder, SWEEP)
    queue = Queue.read(whole.store.queue("small-0123abcd"))
    replace(queue, store=str(copy.store.root)).write(copy.store.queue("small-0123abcd"))
    generations._parse_index.cache_clear()
    json_files.print_note.cache_clear()
    return copy


def attempt(
    trial: Trial, bench: Bench, expected: CommandResult, rows: list[dict[str, object]], at: int, number: int,
    lasting: bool,
) -> Outcome:  # fmt: skip
    """Return what becomes of a trial whose operation ``at`` fails."""
    with faults(bench.folder, at, number, lasting) as met:
        result = _call(trial, bench)
    word, wrong = _judge(result, expected, met, number)
    if not wrong and trial.repeats:
        json_files.print_note.cache_clear()
        wrong = _look(trial, bench, expected, rows, met)
    if not wrong:
        return Outcome(word)
    where = met.operations[-1] if not met.failed else f"{met.failed[0]} {os.path.relpath(met.failed[1], bench.folder)}"
    return Outcome(word, f"{trial.name}: {where} {errno.errorcode[number]}{' lasting' * lasting}: {wrong}")


def _call(trial: Trial, bench: Bench) -> CommandResult | BaseException:
    try:
        return trial.call(bench)
    except Exception as e:  # a traceback
        return e


def _judge(result: CommandResult | BaseException, expected: CommandResult, met: Faults, number: int) -> tuple[str, str]:
    if isinstance(result, BaseException):
        return "lost", f"traceback {type(result).__name__}: {result}"
    words = {os.strerror(number), *(["no space left on the disk"] if number in files.FULL else [])}
    new = [line for line in result.err.splitlines() if line not in expected.err.splitlines()]
    said = any(word.lower() in line.lower() for line in (*new, *result.out.splitlines()) for word in words)
    names = any(met.folder in line for line in (*new, *result.out.splitlines()))
    if number == errno.ENOENT:  # gone: which is no error of the file system, and told in other words
        said = said or bool(new)
    if "Traceback" in result.err or "Exception ignored" in result.err:
        return "lost", f"traceback on stderr: {result.err[-400:]!r}"
    if advice := [line for line in new if any(a in line for a in _ADVICE) and number != errno.ENOENT]:
        return "lost", f"advice {advice[0]!r}"
    same = _plain(result.out) == _plain(expected.out)
    if result.code == expected.code and (same or number == errno.ENOENT):
        return "survived", ""
    if result.code == 2 and same and len(result.out) > 1:
        return "lost", f"exit 2 after all was printed: {result.err[-400:]!r}"
    if result.code != 2 and not (said and names) and number != errno.ENOENT:
        return "lost", f"silent: code {result.code} {result.err[-300:]!r} {_difference(result.out, expected.out)}"
    if result.code == 2 and not said:
        return "lost", f"errno unsaid: {result.err[-400:]!r}"
    if not names:
        return "lost", f"no path: {result.err[-400:]!r}"
    if result.code == 2 and sum(line.startswith("error: ") for line in result.err.splitlines()) != 1:
        return "lost", f"not one line: {result.err[-400:]!r}"
    return "said", ""


def _plain(text: str) -> str:
    return _CHANGING.sub("#", text)


def _difference(text: str, expected: str) -> str:
    """Return the first line that is another than expected."""
    pairs = zip(_plain(text).splitlines(), _plain(expected).splitlines(), strict=False)
    lengths = f"{len(text)} for {len(expected)} letters"
    return next((f"{a[:100]!r} for {b[:100]!r}" for a, b in pairs if a != b), lengths)


def _rows(bench: Bench) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = records.read_records(bench.store, bench.store.done_ids()).to_pylist()
    return rows


def _look(trial: Trial, bench: Bench, expected: CommandResult, before: list[dict[str, object]], met: Faults) -> str:
    """Return what is lost on a store after a fault."""
    result = _call(trial, bench)
    if isinstance(result, BaseException) or result.code != expected.code:
        return f"afterwards: {result!r}"
    if _plain(result.out) != _plain(expected.out):
        return f"afterwards: {_difference(result.out, expected.out)}"
    try:
        after = {r["run_id"]: r for r in _rows(bench)}
    except UserError as e:
        return f"afterwards: {e}"
    if any(after.get(r["run_id"]) != r for r in before):
        return "afterwards: a record is lost"
    left = [p for p in bench.folder.rglob(".*.tmp") if p != Path(met.failed[1] if met.failed else "/")]
    if left and not (met.failed and met.failed[0] in ("unlink", "rmdir", "stat", "scandir", "lstat", "open")):
        return f"afterwards: {left[0].name} is left"
    return ""

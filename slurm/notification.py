"""Notification of a submission's events, each told once by the user's command, whoever sees it first.

Events: ``done`` (every run of the sweep has a record), ``failed`` (the first failure), and ``stuck`` (runs are left and
nothing will train them, or failures are all that is left).
"""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from harness.errors import UserError, one_line
from harness.phrases import plural
from harness.store.store import Store
from slurm.notify_command import run_notify_command
from slurm.queue import Notification, Queue, cancelled_file, told_file, watched_file

EVENTS = ("done", "failed", "stuck")
WATCHED_SECONDS = 300.0  # after which who has not said that they watch a queue does not


def tell(queue_file: Path, why_stuck: Callable[[Queue], str] = lambda queue: "") -> None:
    """Tell the user what has become of their queue, unless that was told; whatever fails is only noted in the log.

    ``why_stuck`` returns why nothing trains the runs that are left; empty where something does. Nothing is told of a
    queue that others can have written, or that is gone.
    """
    try:
        queue = Queue.read_own(queue_file)
    except (UserError, OSError):
        return
    if (notify := queue.notify) is None:
        return
    try:
        for event, text in _events(queue, notify, queue_file, why_stuck):
            _tell_once(told_file(queue_file, notify.submitted, event), event, queue, notify, text)
    except Exception as e:  # whatever it is, jobs and the sweep go on
        _note(f"{type(e).__name__}: {e}")


@contextmanager
def watching() -> Iterator[Callable[[Path], None]]:
    """Yield what lets jobs know that somebody watches a queue and starts lost jobs again, as long as it is called."""
    told: dict[Path, float] = {}

    def watch(queue_file: Path) -> None:
        mark = watched_file(queue_file)
        if time.monotonic() - told.get(mark, -WATCHED_SECONDS) > WATCHED_SECONDS / 10:
            with suppress(OSError):
                mark.touch()
            told[mark] = time.monotonic()

    try:
        yield watch
    finally:
        for mark in told:
            with suppress(OSError):
                mark.unlink(missing_ok=True)


def is_watched(queue_file: Path) -> bool:
    """Return whether somebody watches a queue, or was killed while they did, a few minutes ago."""
    try:
        return watched_file(queue_file).stat().st_mtime > time.time() - WATCHED_SECONDS
    except OSError:
        return False


def _events(
    queue: Queue, notify: Notification, queue_file: Path, why_stuck: Callable[[Queue], str]
) -> Iterator[tuple[str, str]]:
    store = Store(Path(queue.store))
    done, failed = store.done_ids(), store.failed_ids()
    number_done = notify.done + len(queue.run_ids & done)
    number_failed = notify.failed + len((queue.run_ids & failed) - done)
    counts = f"{number_done:,} of {plural(notify.runs, 'run')}"
    if first := next((k for job in queue.jobs for k in job.run_ids if k in failed and k not in done), None):
        yield "failed", f"first failure: {_failure(queue, store, first)}; {counts} done"
    if queue.run_ids - done - failed:
        if not cancelled_file(queue_file).exists() and (reason := why_stuck(queue)):
            failures = f", {number_failed:,} failed" if number_failed else ""
            yield (
                "stuck",
                f"stuck: {counts} done{failures}, {notify.runs - number_done - number_failed:,} left: {reason}",
            )
    elif number_failed:
        yield "stuck", f"stuck: {counts} done, {number_failed:,} failed"
    else:
        yield "done", f"all done, {counts}"


def _failure(queue: Queue, store: Store, run_id: str) -> str:
    job = next(job for job in queue.jobs if run_id in job.run_ids)
    method = next(run.method for run in job.runs if run.run_id == run_id)
    failure = store.failure(run_id)
    pair = f"{job.teacher} > {job.student}" if job.teacher else job.student
    return f"{pair} / {method} ({run_id}): {one_line(failure.cause if failure else 'unknown cause', 200)}"


def _tell_once(told: Path, event: str, queue: Queue, notify: Notification, text: str) -> None:
    """Tell of an event, unless its mark is there: of several processes, the one that makes it tells."""
    try:
        os.close(os.open(told, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        return
    run_command(event, notify, queue.cluster, text)


def run_command(event: str, notify: Notification, cluster: str | None, text: str) -> None:
    """Run the user's command for an event, with a summary of one line; what goes wrong is only noted."""
    elapsed = timedelta(seconds=int(max(0.0, time.time() - notify.submitted / 1e9)))
    summary = one_line(f"kd: {notify.sweep} {_place(cluster)}: {text}, {elapsed}")
    variables = {"KD_EVENT": event, "KD_SWEEP": notify.sweep, "KD_SUMMARY": summary}
    try:
        problem = run_notify_command(notify.command, summary, variables, notify.folder)
    except OSError as e:
        problem = f"{type(e).__name__}: {e}"
    if problem:
        _note(f"{problem}; not told: {summary}")


def _place(cluster: str | None) -> str:
    if cluster is None:
        return f"on {socket.gethostname()}"
    return f"on cluster {Path(cluster).name.removesuffix('.yaml').removesuffix('.yml')}"


def _note(problem: str) -> None:
    print(f"note: the command of --notify: {one_line(problem)}", file=sys.stderr, flush=True)

"""Nodes that a job has left, because it ended there at once while others worked elsewhere.

Its script leaves them, see ``script_end``. Once the job works on another node, and other jobs have left it too,
its sweep avoids it, and so do its jobs that wait for their start.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from harness.errors import UserError
from harness.store import files, json_files
from harness.store.store import Store
from slurm import commands
from slurm.array_jobs import ArrayJobs, queue_file_of
from slurm.excluded_nodes import exclude_node, excluded_nodes, sweep_of
from slurm.script_end import AT_ONCE_SECONDS, LEFT, PLACE

_LOG = re.compile(r"_\d+_log\.out$")  # of a job, or of one of several on its node
_LINE = re.compile(r"([\w.-]+) (\d{1,3}) (\d{1,3})")
_JOBS = 2  # that have left a node, before others avoid it: of one, its own code may be the reason


@dataclass(frozen=True)
class _Leaving:
    exit_code: int
    most: int  # nodes that the queue of the job may avoid


def note_begin(log: str) -> None:
    """Note that the job of a log, which is this one, has begun to work on its node."""
    if node := os.environ.get("SLURMD_NODENAME"):
        with suppress(OSError):
            Path(_LOG.sub("", log) + PLACE).write_text(f"began {node}\n")


def left_nodes(log: str) -> list[str]:
    """Return the nodes that the job of a log has left."""
    return list(_left(Path(_LOG.sub("", log) + LEFT)))


def note_left(log: str, node: str, exit_code: int, most: int) -> None:
    """Note that the job of a log has left a node."""
    with open(_LOG.sub("", log) + LEFT, "a") as note:
        print(node, exit_code, most, file=note)


def _left(note: Path) -> dict[str, _Leaving]:
    text = ""
    with suppress(OSError):  # it has left none
        text = files.read_bytes(note).decode(errors="replace")
    lines = filter(None, map(_LINE.fullmatch, text.splitlines()))
    return {line[1]: _Leaving(int(line[2]), int(line[3])) for line in lines}


@contextmanager
def excluding(store: Store, log: str) -> Iterator[None]:
    """Let the queue of a job avoid the nodes that the job has left, from its first minute here on.

    If the block ends by itself before, that shows as well that the job works here. What fails is only noted in the log.
    """
    if not left_nodes(log):
        yield
        return
    timer = threading.Timer(AT_ONCE_SECONDS, exclude_left, (store, log))
    timer.daemon = True
    timer.start()
    yield
    timer.cancel()
    exclude_left(store, log)


def exclude_left(store: Store, log: str) -> None:
    """Let the queue of a job avoid the nodes that the job has left; what fails is only noted in the job's log."""
    try:
        _exclude(store, log)
    except (UserError, OSError) as e:
        json_files.print_note(f"further jobs may start on nodes that this one has left: {e}")


def _exclude(store: Store, log: str) -> None:
    job, bad = Path(_LOG.sub("", log)), list[str]()
    queue_file = queue_file_of(store, job.parent.name)
    for node, leaving in _left(Path(f"{job}{LEFT}")).items():
        known = {excluded.node for excluded in excluded_nodes(queue_file)}
        if node in known or len(known) >= leaving.most or not _is_bad(node, store, queue_file):
            continue
        if which("sinfo") and not commands.usable_nodes() - known - {node}:  # not in a container
            continue
        cause = f"job {job.name} ended there at once, with exit code {leaving.exit_code}, and works elsewhere"
        exclude_node(queue_file, node, cause, works_elsewhere=True)
        bad.append(node)
    if bad and which("scontrol"):
        names = {job.name for job in ArrayJobs(store).read() if _is_of(job.name, store, queue_file)}
        commands.exclude(names, bad)


def _is_bad(node: str, store: Store, queue_file: Path) -> bool:
    """Return whether several jobs of a queue's sweep have left a node, and none has begun there since."""
    folders = [folder for folder in store.jobs.glob("kd-*") if _is_of(folder.name, store, queue_file)]
    notes = [note for folder in folders for note in files.entries(folder, f"*{LEFT}") if node in _left(note)]
    if len(notes) < _JOBS:
        return False
    since = min(note.stat().st_mtime for note in notes)
    places = (place for folder in folders for place in files.entries(folder, f"*{PLACE}"))
    return not any(place.stat().st_mtime > since and place.read_text() == f"began {node}\n" for place in places)


def _is_of(name: str, store: Store, queue_file: Path) -> bool:
    """Return whether the array job of a name is of the sweep that a queue is of."""
    return sweep_of(queue_file_of(store, name)) == sweep_of(queue_file)

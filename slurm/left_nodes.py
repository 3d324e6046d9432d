"""Nodes that a job has left, because it ended there at once while others worked elsewhere.

Its script leaves them, see ``script_end``. Once the job works on another node, the fault is not its own: then its queue
avoids them, and the jobs that wait for their start do.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import which

from harness.errors import UserError
from harness.store import files, json_files
from harness.store.store import Store
from slurm import commands
from slurm.array_jobs import ArrayJobs, queue_file_of
from slurm.excluded_nodes import exclude_node, excluded_nodes
from slurm.script_end import AT_ONCE_SECONDS, LEFT, PLACE

_LOG = re.compile(r"_\d+_log\.out$")  # of a job, or of one of several on its node
_LINE = re.compile(r"([\w.-]+) (\d{1,3})")
_KILLS = 2  # jobs that were killed on a node at once: of one, its own code may be the reason


def note_begin(log: str) -> None:
    """Note that the job of a log, which is this one, has begun to work on its node."""
    if node := os.environ.get("SLURMD_NODENAME"):
        with suppress(OSError):
            Path(_LOG.sub("", log) + PLACE).write_text(f"began {node}\n")


def left_nodes(log: str) -> dict[str, int]:
    """Return the nodes that the job of a log has left, and its exit code on each."""
    return _left(Path(_LOG.sub("", log) + LEFT))


def _left(note: Path) -> dict[str, int]:
    text = ""
    with suppress(OSError):  # it has left none
        text = files.read_bytes(note).decode(errors="replace")
    return {found[1]: int(found[2]) for line in text.splitlines() if (found := _LINE.fullmatch(line))}


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
    job, left = Path(_LOG.sub("", log)), left_nodes(log)
    queue_file = queue_file_of(store, job.parent.name)
    known = {excluded.node for excluded in excluded_nodes(queue_file)}
    of_all = [_left(note) for note in files.entries(job.parent, f"*{LEFT}")]
    bad = {
        node: code
        for node, code in left.items()
        if node not in known and (code < 128 or sum(node in of_job for of_job in of_all) >= _KILLS)
    }
    for node, code in bad.items():
        exclude_node(
            queue_file, node, f"job {job.name} ended there at once, with exit code {code}, and works elsewhere"
        )
    if bad and which("scontrol"):  # not in a container
        names = {job.name for job in ArrayJobs(store).read() if queue_file_of(store, job.name) == queue_file}
        commands.exclude(names, bad)

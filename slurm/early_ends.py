"""Jobs that end before they begin any run: Python does not start, or not this harness. They would end so again.

Python cannot say so, and not every cluster has accounting. So the job's script notes its exit code beside its log.
"""

import os
import re
from collections.abc import Sequence, Set
from pathlib import Path

from harness.store import files
from harness.store.store import Store
from slurm import commands, left_nodes
from slurm.array_jobs import ArrayJobs, queue_file_of
from slurm.excluded_nodes import exclude_node, excluded_nodes, forget_nodes
from slurm.script_end import EXIT_CODE

_OF_SLURM = re.compile(r"(srun|slurmstepd\S*): ")  # lines that say no more than that the process has ended,
_OF_PROCESS = re.compile(r": tasks? [\d,-]+: ")  # and how


def write_failures(store: Store) -> set[str]:
    """Write a failure for the open runs of this user's jobs that ended so, and return them.

    Runs that may be tried on another node get none: their queue avoids this one from now on.
    """
    array_jobs, failed = ArrayJobs(store), set[str]()
    if not store.root.is_dir() or not os.access(store.root, os.W_OK):
        return failed
    settled = store.done_ids() | store.failed_ids()
    for array_job in array_jobs.read():
        has_open_runs = not settled.issuperset(run_id for run_ids in array_job.packs for run_id in run_ids)
        if not (has_open_runs and array_job.user == commands.user() and array_jobs.is_own(array_job)):
            continue
        codes = _exit_codes(Path(array_job.folder))
        for i, run_ids in enumerate(array_job.packs):
            if (task := array_job.task(i)) in codes:
                failed |= _fail(store, array_job.name, run_ids, settled | failed, task, codes[task])
    _forget_nodes(store, array_jobs, failed)
    return failed


def _forget_nodes(store: Store, array_jobs: ArrayJobs, failed: Set[str]) -> None:
    """Let queues use nodes again that jobs have left whose runs failed elsewhere too: the nodes were not to blame."""
    for array_job in array_jobs.read() if failed else ():
        tasks = (array_job.task(i) for i, run_ids in enumerate(array_job.packs) if not failed.isdisjoint(run_ids))
        nodes = {node for task in tasks for node in left_nodes.left_nodes(f"{array_job.folder}/{task}_0_log.out")}
        if nodes:
            forget_nodes(queue_file_of(store, array_job.name), nodes)


def _exit_codes(folder: Path) -> dict[str, Path]:
    """Return job (12, 12_3) -> the file that holds its exit code."""
    return {path.name.removesuffix(EXIT_CODE): path for path in files.entries(folder, f"*{EXIT_CODE}")}


def _fail(store: Store, name: str, run_ids: Sequence[str], settled: Set[str], task: str, note: Path) -> set[str]:
    """Write a failure for a job's runs that are not settled, unless it had begun one, and return them."""
    log, failed = note.parent / f"{task}_0_log.out", set(run_ids) - settled
    logs = f"{note.parent}/{task}_"  # of jobs that share a node, each has its own
    if any(attempt["log"].startswith(logs) for run_id in run_ids for attempt in store.attempts(run_id)):
        failed = set()
    if failed:
        log_end = files.tail(log) if log.exists() else ""
        code, *place = note.read_text().split()
        on_node = f" on {place[0]}" if place else ""
        cause = f"its job {task} ended{on_node} before any run began, with exit code {code}{_reason(log_end)}"
        if len(place) == 2 and _exclude(
            queue_file_of(store, name), place[0], int(place[1]), cause.removeprefix("its ")
        ):
            left_nodes.note_left(str(log), place[0], int(code), int(place[1]))
            failed = set()
        kind = "disk" if files.names_full_disk(log_end) else "killed"
        for run_id in sorted(failed):
            store.write_failure(run_id, kind, cause, log_end, str(log))
    note.unlink(missing_ok=True)  # after the failures: --retry-failed is for another job
    return failed


def _exclude(queue_file: Path, node: str, most: int, cause: str) -> bool:
    """Return whether the jobs of a queue avoid a node from now on: they may avoid so many, and there are others."""
    if not most:
        return False
    nodes = {excluded.node for excluded in excluded_nodes(queue_file)}
    if node not in nodes:
        if len(nodes) >= most or not commands.usable_nodes() - nodes - {node}:
            return False
        exclude_node(queue_file, node, cause)
    return True


def _reason(log_end: str) -> str:
    """Return the last line of a log that the job's own programs have written, for the end of a sentence."""
    lines = [line.strip() for line in log_end.splitlines() if line.strip()]
    own = [line for line in lines if not _OF_SLURM.match(line)]
    own = own or [line for line in lines if _OF_PROCESS.search(line)] or lines
    return f": {own[-1][:500]}" if own else ", and its log is empty"

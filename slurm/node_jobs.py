"""Jobs that share a node: one job of SLURM runs several of a sweep's jobs at once, each in a process of its own.

Each has its own GPU, log and starts. The process that starts them trains nothing: it starts again what was killed,
hands SLURM's signals on, and puts the job of SLURM back into the queue once, when all of them have stopped.
"""

import atexit
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.console.terminal import escape_output
from harness.hardware import gpus
from harness.phrases import plural
from harness.store import files
from harness.store.log_streams import open_log_streams
from harness.store.store import Store
from slurm import entry, left_nodes, out_of_memory, staging
from slurm.attempt_notes import asked_at_start
from slurm.first_failure import FirstFailure
from slurm.fork_server import STOPPED, ForkServer
from slurm.oom_kills import oom_kills

POLL_SECONDS = 0.5
STARTING = "jobs share this node"  # in the log of each start: what follows is this start's
KILLED_FOR_MEMORY = "out of memory: this process was killed for the memory of its node"


def share_of_gpus(devices: Sequence[str], number: int, jobs: int) -> str | None:
    """Return the GPUs of job ``number`` of ``jobs``, counted from 0, for CUDA_VISIBLE_DEVICES; None without GPUs.

    Where there are fewer GPUs than jobs, several jobs have the same.
    """
    if not devices:
        return None
    each = max(1, len(devices) // jobs)
    first = number * each % len(devices)
    return ",".join(devices[first : first + each])


def run(order: dict[str, Any], max_attempts: int) -> None:
    """Run the jobs of a ``node_order`` at once, until all have ended or SLURM asks them to stop.

    Raises:
        RuntimeError: a job has ended with an error, after all others have ended.
    """
    open_log_streams()
    exit_codes: list[int] = []
    atexit.register(entry.end_process, exit_codes)
    escape_output()  # so that a job's log can be shown on a terminal by any program
    signals = entry.note_signals()  # in place of submitit's handler, which would stop in mid-step

    import submitit

    job = submitit.JobEnvironment()
    devices, orders = gpus(), _staged(order["jobs"], signals)
    orders = [{**each, "asked": asked_at_start(each.get("asked", {}), str(job.paths.stdout))} for each in orders]
    folder, store = Path(job.paths.folder), Store(Path(orders[0]["store"]))
    members = [
        # Beside this process's own log, which is number 0.
        _Member(each, folder / f"{job.job_id}_{number + 1}_log.out", share_of_gpus(devices, number, len(orders)))
        for number, each in enumerate(orders)
    ]
    _note_memory(Path(job.paths.stdout), store, members)
    run_ids = [run_id for member in members for run_id in member.run_ids]
    first_failure = FirstFailure(store, entry.queue_file(store, job), run_ids)
    with ThreadPoolExecutor(1) as teller:
        node = _Node(store, members, max_attempts, signals, lambda: entry.tell(store, job), teller)
        left_nodes.note_begin(str(job.paths.stdout))
        with left_nodes.excluding(store, str(job.paths.stdout)):
            finished = node.train()
        if finished:
            first_failure.end_look()
        exit_code = 0 if finished else entry.requeue(job.job_id)
    if node.errors:
        raise RuntimeError(f"{plural(len(node.errors), 'job')} ended with an error: see {', '.join(node.errors)}")
    exit_codes.append(exit_code)


def _staged(orders: Sequence[dict[str, Any]], signals: Sequence[int]) -> list[dict[str, Any]]:
    """Return the orders of the jobs, to read the copy of their data on this node where they ask for one."""
    data, folder = orders[0]["data"], orders[0].get("stage")
    if data and folder:
        data = str(staging.stage(Path(data), folder, lambda: bool(signals)))
    return [{**order, "data": data} for order in orders]


def _note_memory(own_log: Path, store: Store, members: Sequence["_Member"]) -> None:
    """Note in the jobs' logs that SLURM has ended this job's last start for its memory, which is that of them all."""
    last_start = files.tail(own_log).rpartition(STARTING)[2] if own_log.exists() else ""
    if out_of_memory.is_told_by(last_start):
        settled = store.done_ids() | store.failed_ids()
        for member in members:
            if not settled.issuperset(member.run_ids):
                member.note(KILLED_FOR_MEMORY)


@dataclass
class _Member:
    """A job, its log and its GPU."""

    order: dict[str, Any]
    log: Path
    gpu: str | None
    starts: int = 0  # since this job of SLURM was started last

    @property
    def run_ids(self) -> list[str]:
        return list(self.order["run_ids"])

    def note(self, text: str) -> None:
        with open(self.log, "a") as log:
            print(text, file=log)


@dataclass
class _Node:
    store: Store
    members: Sequence[_Member]
    max_attempts: int
    signals: Sequence[int]  # to which those that ask to stop are added
    tell: Callable[[], None]  # tells the user of ends and failures
    teller: Executor  # of that, so that nobody waits for the user's command
    errors: list[str] = field(default_factory=list)  # the logs of jobs that ended with one
    _stopped: bool = False
    _server: ForkServer | None = None  # not before it is needed: it may be killed for its memory when it starts
    _running: list[_Member] = field(default_factory=list)
    _kills: int = field(default_factory=oom_kills)

    def train(self) -> bool:
        """Return whether all jobs have come to their end; False: some were stopped by a signal and wait."""
        print(f"{len(self.members)} {STARTING}", flush=True)
        for member in self.members:
            self._start(member)
        while self._running:
            time.sleep(POLL_SECONDS)
            assert self._server
            if self.signals:
                self._server.stop_jobs()  # again and again: one may have just begun
            for member in [member for member in self._running if self._server.has_ended(member.log)]:
                self._running.remove(member)
                self._collect(member, self._server.exit_code(member.log))
        if self._server:
            self._server.close()
        self.teller.submit(self.tell)
        return not self._stopped

    def _start(self, member: _Member) -> None:
        if self.signals:
            self._stopped = True
            return
        entry.fail_after_max_attempts(self.store, member.run_ids, self.max_attempts, str(member.log), member.starts)
        if self.store.done_ids() | self.store.failed_ids() >= set(member.run_ids):
            return
        print(f"{plural(len(member.run_ids), 'run')} on GPU {member.gpu or 'none'}: {member.log}", flush=True)
        self._server = self._server or ForkServer(member.log)
        self._server.start(member.log, member.order, member.gpu)
        member.starts += 1
        self._running.append(member)

    def _collect(self, member: _Member, code: int | None) -> None:
        """Start a job again that did not end by itself, unless all are to stop."""
        if code == 0:
            self.teller.submit(self.tell)
            return
        if code is not None and code > 0 and code != STOPPED:
            print(f"{member.log}: ended with an error", flush=True)
            self.errors.append(str(member.log))
            return
        if code is None and not self.signals:  # the fork server is gone: SLURM ends its jobs and starts all again
            os.kill(os.getpid(), signal.SIGKILL)
        if code == -signal.SIGKILL and oom_kills() > self._kills:
            self._kills += 1
            member.note(KILLED_FOR_MEMORY)
        print(f"{member.log}: its process was ended from outside", flush=True)
        self._start(member)

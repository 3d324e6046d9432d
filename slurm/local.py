"""The local queue: a process that keeps at most ``max_parallel`` jobs running on this machine.

This dispatcher starts job by job, through a fork server. It has a session of its own: closing the terminal, ctrl-C or
killing the command that started it leave it and its jobs running. If it dies, its jobs continue, and the next ``sweep``
starts another dispatcher that takes them into account.

    python -m slurm.local QUEUE.json
"""

import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import UserError, one_line, shorten, system_error
from harness.hardware import gpus
from harness.store import files, ownership
from harness.store.locks import Lock, is_locked
from harness.store.log_streams import error_at_end, open_log_streams
from harness.store.store import Store
from slurm import missing_teachers, notification, processes
from slurm.fork_server import ForkServer
from slurm.module_command import module_command
from slurm.queue import Queue, QueuedJob, told_file

MAX_STARTS = 3  # of a run whose process dies without a result (killed, out of memory) before it counts as failed
POLL_SECONDS = 0.05
LOOK_SECONDS = 0.5  # between looks at what changed in the store, unless a job has ended


def lock_of(queue_file: Path) -> Path:
    """Return the lock that the dispatcher of a queue holds."""
    return queue_file.with_suffix(".lock")


@dataclass
class Local:
    """The backend of queues on this machine."""

    queue_file: Path

    def is_alive(self) -> bool:
        """Return whether a dispatcher is at work on this queue."""
        return is_locked(lock_of(self.queue_file))

    def runs_without_job(self) -> set[str]:
        """Return every open run when no dispatcher is at work, else none."""
        if self.is_alive():
            return set()
        queue = Queue.read(self.queue_file)
        store = Store(Path(queue.store))
        return {k for job in queue.jobs for k in job.run_ids} - store.done_ids() - store.failed_ids()

    def start(self) -> int:
        """Start a dispatcher in the background, unless one is at work. No run is left for later.

        Raises:
            UserError: it ended at once with an error.
        """
        if self.is_alive():
            return 0
        with open(self.queue_file.with_suffix(".log"), "a", opener=ownership.without_links) as log:
            begin = log.tell()
            dispatcher = subprocess.Popen(
                module_command("slurm.local", self.queue_file),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while dispatcher.poll() is None and not self.is_alive():
            time.sleep(POLL_SECONDS)
        if dispatcher.returncode:
            raise UserError(self._why_ended(begin, dispatcher.returncode))
        return 0

    def _why_ended(self, begin: int, code: int) -> str:
        """Return why a dispatcher ended as it was started: the last line of its log after byte ``begin``."""
        log = self.queue_file.with_suffix(".log")
        lines = files.read_bytes(log)[begin:].decode(errors="replace").splitlines()
        full = f"{log.parent}: no space left on the disk; " if files.is_disk_full(log.parent) else ""
        return f"{full}nothing is started: {(lines or [f'the dispatcher ended with exit code {code}'])[-1]}"

    def cancel(self) -> bool:
        """End the dispatcher and its jobs; False when there are none. What was trained stays checkpointed.

        They are killed, because jobs take SIGTERM as a request to be restarted.

        Raises:
            UserError: a dispatcher is at work where this process cannot end it.
        """
        ended = processes.end_queue(self.queue_file)
        until = time.monotonic() + processes.PATIENCE_SECONDS
        while ended and self.is_alive() and time.monotonic() < until:
            time.sleep(POLL_SECONDS)  # a process that was killed may hold its lock for a moment
        if self.is_alive():
            raise UserError(f"{self.queue_file}: runs on {self._host()}, and not as this user here: cancel it there")
        return ended

    def _host(self) -> str:
        """Return the name of the machine on which the dispatcher is, as it has said itself."""
        try:
            _, host = lock_of(self.queue_file).read_text(errors="replace").split(maxsplit=1)
        except (OSError, ValueError):
            return "another machine"
        return shorten(host)

    def scheduled(self, run_id: str) -> tuple[str, str]:
        """Return nothing: a run that is not running waits for its turn."""
        return "", ""


@dataclass
class _Running:
    job: QueuedJob
    server: ForkServer
    log: Path
    slot: int

    def has_ended(self) -> bool:
        return self.server.has_ended(self.log)


@dataclass
class Dispatcher:
    """The process that submits jobs whose teacher is ready, as others end. It reads the queue file again whenever it
    is rewritten."""

    queue_file: Path
    queue: Queue = field(init=False)
    store: Store = field(init=False)
    waiting: list[QueuedJob] = field(default_factory=list)
    running: list[_Running] = field(default_factory=list)
    starts: Counter[str] = field(default_factory=Counter)  # of runs, that ended without a result
    servers: list[ForkServer] = field(default_factory=list)  # the last one starts jobs, others still have some
    _read: tuple[int, int] | None = None  # the version of the queue file that was read

    def run(self) -> None:
        """Return when every run is done or failed, or the queue file is gone.

        Raises:
            UserError: the queue file is damaged.
        """
        next_look = time.monotonic()
        while self.is_rewritten() or self.waiting or self.running:
            if self._version() is None:
                print(f"{self.queue_file}: removed; no further job is started, jobs in training go on", flush=True)
                return
            if self.is_rewritten():
                self.read_queue()
                next_look = time.monotonic()
            ended = [r for r in self.running if r.has_ended()]
            if ended or time.monotonic() >= next_look:
                self._collect(ended)
                self._start_ready()
                self._tell_failure()
                next_look = time.monotonic() + LOOK_SECONDS
            time.sleep(POLL_SECONDS)

    def is_rewritten(self) -> bool:
        """Return whether a sweep was run again since the queue file was read, perhaps with --retry-failed."""
        return self._version() not in (None, self._read)

    def _version(self) -> tuple[int, int] | None:
        try:
            status = self.queue_file.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def read_queue(self) -> None:
        """Read the queue file: its jobs without results wait, except for those in training.

        Raises:
            UserError: it is missing or damaged, or not of this user.
        """
        self._read = self._version()  # before reading: what is written in between is read again
        self.queue = Queue.read_own(self.queue_file)
        self.store = Store(Path(self.queue.store))
        os.environ["OMP_NUM_THREADS"] = str(self.queue.threads)
        # A failed run of a running job that is to be tried again waits for the job's end, see _collect.
        running = {k for r in self.running for k in r.job.run_ids}
        jobs = (job.only(set(job.run_ids) - running) for job in self.queue.jobs)
        self.waiting = [job for job in jobs if job.runs]
        self.starts.clear()

    def _open_part(self, job: QueuedJob) -> QueuedJob:
        return job.only(set(job.run_ids) - self.done - self.failed)

    def _collect(self, ended: list[_Running]) -> None:
        self.done, self.failed = self.store.done_ids(), self.store.failed_ids()  # after, so that none is overlooked
        for r in ended:
            self.running.remove(r)
            left = self._open_part(r.job).run_ids
            if not left:
                continue
            if any(map(self.store.is_running, left)):  # it lives on without its fork server
                self.waiting.insert(0, r.job)
                continue
            # The job may not have come to its later packs.
            begun = [k for k in left if any(a["log"] == str(r.log) for a in self.store.attempts(k)[-1:])]
            self.starts.update(begun or left)
            lost = [k for k in left if self.starts[k] >= MAX_STARTS]
            log_end = files.tail(r.log)
            kind, cause = "killed", f"the process died without a result {MAX_STARTS} times: killed, or out of memory?"
            if files.names_full_disk(log_end) or files.is_disk_full(self.store.root):
                kind, cause = "disk", f"{self.store.root}: no space left on the disk"
            elif error := error_at_end(log_end):
                kind, cause = "code", error
            for run_id in lost:
                self.store.write_failure(run_id, kind, cause, log_end, str(r.log))
            self.failed |= set(lost)
            if again := [k for k in left if k not in lost]:
                print(f"{', '.join(again)}: the process ended without a result; starting it again", flush=True)
                self.waiting.insert(0, r.job)
        self._take_back()
        for server in [s for s in self.servers[:-1] if all(r.server is not s for r in self.running)]:
            self.servers.remove(server)
            server.close()

    def _take_back(self) -> None:
        """Let runs wait again that had ended and whose record is gone."""
        gone = self.queue.run_ids - self.done - self.failed
        gone = gone.difference(*(job.run_ids for job in (*self.waiting, *(r.job for r in self.running))))
        for job in self.queue.jobs if gone else ():
            if (again := job.only(gone)).runs:
                print(f"{', '.join(again.run_ids)}: no result any more; starting again", flush=True)
                self.waiting.insert(0, again)

    def _start_ready(self) -> None:
        elsewhere = 0
        for job in list(self.waiting):
            if len(self.running) + elsewhere >= self.queue.max_parallel:
                return
            left = self._open_part(job)
            if not left.runs:
                self.waiting.remove(job)
            elif failed := [k for k in left.all_needs if k in self.failed]:
                learners = {run.run_id for run in left.runs if run.has_teacher}
                self._fail_with_teacher(failed[0], learners)
                self.waiting[self.waiting.index(job)] = left.only(set(left.run_ids) - learners)
            elif open_needs := [k for k in left.all_needs if k not in self.done]:
                missing = (k for k in open_needs if missing_teachers.is_missing(self.store, self.queue.run_ids, k))
                if teacher_run := next(missing, None):
                    self.failed |= missing_teachers.fail_learners(self.store, left, teacher_run)
            elif any(map(self.store.is_running, left.run_ids)):  # by an earlier dispatcher's job, or another sweep's
                elsewhere += 1
            else:
                self.waiting.remove(job)
                self.running.append(self._start(job, left.run_ids))

    def _fail_with_teacher(self, teacher: str, run_ids: Collection[str]) -> None:
        failure = self.store.failure(teacher)
        cause = f"its teacher's run {teacher} failed: {failure.cause if failure else 'unknown cause'}"
        for run_id in run_ids:
            self.store.write_failure(run_id, "teacher", cause, "", failure.log if failure else "")
        self.failed |= set(run_ids)

    def _tell_failure(self) -> None:
        """Tell the user of a failure while other jobs go on."""
        notify = self.queue.notify
        if notify and self.failed & self.queue.run_ids:
            if not told_file(self.queue_file, notify.submitted, "failed").exists():
                threading.Thread(target=notification.tell, args=(self.queue_file,)).start()

    def _start(self, job: QueuedJob, run_ids: Collection[str]) -> _Running:
        slot = min(set(range(self.queue.max_parallel)) - {r.slot for r in self.running})
        gpu = devices[slot % len(devices)] if (devices := gpus()) else None
        log = self.store.jobs / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}" / "log.out"
        log.parent.mkdir(parents=True)
        if not self.servers or self.servers[-1].is_outdated:
            self.servers.append(ForkServer(self.queue_file))
        self.servers[-1].start(log, self.queue.order(run_ids).to_json(), gpu)
        return _Running(job, self.servers[-1], log, slot)


def main() -> None:
    open_log_streams()
    queue_file = Path(sys.argv[1])
    try:
        _dispatch(queue_file)
    except (UserError, files.DiskFull, OSError) as e:
        cause = system_error(e) if isinstance(e, OSError) else one_line(e)
        notification.tell(queue_file, lambda _: cause)
        sys.exit(cause)  # into the queue's log


def _dispatch(queue_file: Path) -> None:
    lock, dispatcher = Lock(lock_of(queue_file)), Dispatcher(queue_file)
    dispatcher.read_queue()  # before the lock: whoever has started this process takes it for at work from then on
    while lock.acquire():
        lock.write(f"{os.getpid()} {socket.gethostname()}")  # nothing is done by what it says
        dispatcher.run()
        lock.release()
        # Asked without the lock: whoever rewrites the queue while it is held starts no other dispatcher.
        if not dispatcher.is_rewritten():
            notification.tell(queue_file)
            return


if __name__ == "__main__":
    main()

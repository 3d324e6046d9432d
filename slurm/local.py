"""The local queue: a small process of its own that keeps at most ``max_parallel`` submitit jobs going.

submitit's local executor starts whatever it is given at once, so this feeds it pack by pack. It lives in a session of
its own: closing the terminal, ctrl-C or killing the command that started it leave it and its jobs running. If it dies
itself, its jobs go on, and the next ``sweep`` starts another that takes them into account.

    python -m slurm.local QUEUE.json
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.hardware import gpus
from harness.store import files
from harness.store.files import Lock, is_locked
from harness.store.store import Store
from slurm.queue import Queue, QueuedPack

MAX_TRIES = 3  # starts of a pack whose process dies without a word (killed, out of memory) before it counts as failed
POLL_SECONDS = 0.3
NO_TIME_LIMIT_MINUTES = 525_600


def lock_of(queue_file: Path) -> Path:
    return queue_file.with_suffix(".lock")


@dataclass
class Local:
    """The backend of queues on this machine."""

    queue_file: Path

    def is_alive(self) -> bool:
        """Whether a process is feeding this queue."""
        return is_locked(lock_of(self.queue_file))

    def neglected(self) -> set[str]:
        """Every open run when no process feeds the queue."""
        if self.is_alive():
            return set()
        queue = Queue.read(self.queue_file)
        store = Store(Path(queue.store))
        return {k for pack in queue.packs for k in pack.run_ids} - store.done_ids() - store.failed_ids()

    def start(self) -> int:
        """Starts feeding in the background, unless some process does so already."""
        if self.is_alive():
            return 0
        with self.queue_file.with_suffix(".log").open("a") as log:
            subprocess.Popen(
                [sys.executable, "-m", "slurm.local", str(self.queue_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return 0

    def cancel(self) -> bool:
        """Ends the feeding process and its jobs; False when there is none. What was trained stays checkpointed."""
        ended = False
        if self.is_alive():
            with contextlib.suppress(OSError, ValueError):
                # The feeder leads the group of its jobs, which would take SIGTERM for a wish to be started again.
                os.killpg(int(lock_of(self.queue_file).read_text()), signal.SIGKILL)
                ended = True
        for pid in self._orphans():
            os.kill(pid, signal.SIGKILL)
            ended = True
        return ended

    def _orphans(self) -> set[int]:
        """Jobs of this queue's runs that an earlier feeder, dead by now, has left."""
        queue = Queue.read(self.queue_file)
        store, found = Store(Path(queue.store)), set()
        for run_id in (k for pack in queue.packs for k in pack.run_ids):
            last = (store.attempts(run_id) or [{}])[-1]
            if store.is_running(run_id) and last.get("host") == socket.gethostname():
                with contextlib.suppress(OSError):
                    if b"submitit" in Path(f"/proc/{last['pid']}/cmdline").read_bytes():
                        found.add(last["pid"])
        return found

    def scheduled(self, run_id: str) -> tuple[str, str]:
        """Nothing: a run that is not running waits for its turn."""
        return "", ""


@dataclass
class _Running:
    pack: QueuedPack
    job: Any  # submitit.LocalJob
    folder: Path
    slot: int


@dataclass
class Feeder:
    """Submits packs whose teacher is ready, as others end. Takes up its queue file anew whenever that is rewritten."""

    queue_file: Path
    queue: Queue = field(init=False)
    store: Store = field(init=False)
    waiting: list[QueuedPack] = field(default_factory=list)
    running: list[_Running] = field(default_factory=list)
    tries: dict[QueuedPack, int] = field(default_factory=dict)
    _read: tuple[int, int] | None = None  # which writing of the queue file was read

    def feed(self) -> None:
        """Returns when every run is done or failed.

        Raises:
            UserError: the queue file is damaged.
        """
        while self.is_rewritten() or self.waiting or self.running:
            if self.is_rewritten():
                self._take_up()
            self._reap()
            self._submit_ready()
            time.sleep(POLL_SECONDS)

    def is_rewritten(self) -> bool:
        """Whether the queue file is not the one that was read: a sweep was run again, with --retry-failed maybe."""
        return self._read != self._stamp()

    def _stamp(self) -> tuple[int, int]:
        found = self.queue_file.stat()
        return found.st_ino, found.st_mtime_ns

    def _take_up(self) -> None:
        self._read = self._stamp()  # before reading: what is written in between is read again
        self.queue = Queue.read(self.queue_file)
        self.store = Store(Path(self.queue.store))
        os.environ["OMP_NUM_THREADS"] = str(self.queue.threads)
        # A run of a running pack that has failed and is to be tried again waits for the pack's end, see _reap.
        ours = {k for r in self.running for k in r.pack.run_ids}
        packs = (QueuedPack(tuple(k for k in p.run_ids if k not in ours), p.needs) for p in self.queue.packs)
        self.waiting = [p for p in packs if p.run_ids]
        self.tries.clear()

    def _open_runs(self, pack: QueuedPack) -> list[str]:
        settled = self.done | self.failed
        return [k for k in pack.run_ids if k not in settled]

    def _reap(self) -> None:
        ended = [r for r in self.running if r.job.done()]
        self.done, self.failed = self.store.done_ids(), self.store.failed_ids()  # after, so that none is overlooked
        for r in ended:
            self.running.remove(r)
            if not (left := self._open_runs(r.pack)):
                continue
            self.tries[r.pack] = self.tries.get(r.pack, 0) + 1
            if self.tries[r.pack] < MAX_TRIES:
                print(f"{left}: their process ended and left no result; starting it again", flush=True)
                self.waiting.insert(0, r.pack)
                continue
            log = next(iter(sorted(r.folder.glob("*_log.out"))), r.folder)
            cause = f"the process died without a result {MAX_TRIES} times: killed, or out of memory?"
            for run_id in left:
                self.store.write_failure(run_id, "killed", cause, files.tail(log), str(log))

    def _submit_ready(self) -> None:
        elsewhere = 0
        for pack in list(self.waiting):
            if len(self.running) + elsewhere >= self.queue.max_parallel:
                return
            left = self._open_runs(pack)
            if not left:
                self.waiting.remove(pack)
            elif pack.needs in self.failed:
                alone = self._without_teacher(left)
                self._fail_with_teacher(pack.needs, [k for k in left if k not in alone])
                self.waiting[self.waiting.index(pack)] = QueuedPack(tuple(alone), None)
            elif pack.needs and pack.needs not in self.done:
                continue
            elif any(self.store.is_running(k) for k in left):  # a job of an earlier feeder, or of another sweep
                elsewhere += 1
            else:
                self.waiting.remove(pack)
                self.running.append(self._submit(pack, left))

    def _without_teacher(self, run_ids: list[str]) -> list[str]:
        """The runs that train without one."""
        try:
            return [k for k in run_ids if not self.store.read_science(k)["teacher"]]
        except UserError:
            return run_ids  # their job will tell what is wrong

    def _fail_with_teacher(self, teacher: str | None, left: list[str]) -> None:
        assert teacher is not None
        failure = self.store.failure(teacher)
        cause = f"its teacher's run {teacher} failed: {failure.cause if failure else 'unknown cause'}"
        for run_id in left:
            self.store.write_failure(run_id, "teacher", cause, "", failure.log if failure else "")
        self.failed |= set(left)

    def _submit(self, pack: QueuedPack, run_ids: list[str]) -> _Running:
        import submitit

        slot = min(set(range(self.queue.max_parallel)) - {r.slot for r in self.running})
        folder = self.store.jobs / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        executor = submitit.LocalExecutor(folder=folder)
        executor.update_parameters(timeout_min=NO_TIME_LIMIT_MINUTES, stderr_to_stdout=True)
        if found := gpus():
            executor.update_parameters(gpus_per_node=1, visible_gpus=[found[slot % len(found)]])
        q = self.queue
        spec = dict(store=q.store, run_ids=run_ids, data=q.data, weights=q.weights, threads=q.threads)
        from slurm.entry import run_job

        return _Running(pack, executor.submit(run_job, spec), folder, slot)


def main() -> None:
    queue_file = Path(sys.argv[1])
    lock, feeder = Lock(lock_of(queue_file)), Feeder(queue_file)
    # Looked at again without the lock: whoever rewrites the queue while it is held starts no other feeder.
    while feeder.is_rewritten() and lock.acquire():
        lock_of(queue_file).write_text(str(os.getpid()))
        feeder.feed()
        lock.release()


if __name__ == "__main__":
    main()

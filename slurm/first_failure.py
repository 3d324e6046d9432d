"""The first failure among a job's runs, of which the job tells the user while it trains its other runs."""

import threading
from collections.abc import Collection
from pathlib import Path

from harness.errors import UserError
from harness.store.store import Store
from slurm import notification
from slurm.queue import Queue

LOOK_SECONDS = 5.0


class FirstFailure:
    """A thread that looks for it, so that training waits neither for files nor for the user's command."""

    def __init__(self, store: Store, queue_file: Path, run_ids: Collection[str]):
        self._job_ended = threading.Event()
        args = (store, queue_file, run_ids)
        self._thread = threading.Thread(target=self._look, args=args, name="first failure", daemon=True)
        self._thread.start()

    def end_look(self) -> None:
        """Look no more, and return when a command that has begun has ended: with the job, it would be killed."""
        self._job_ended.set()
        self._thread.join()

    def _look(self, store: Store, queue_file: Path, run_ids: Collection[str]) -> None:
        try:
            if Queue.read_own(queue_file).notify is None:
                return
        except (UserError, OSError):
            return
        while not self._job_ended.wait(LOOK_SECONDS):
            if any(store.failure_file(run_id).exists() for run_id in run_ids):
                notification.tell(queue_file)
                return

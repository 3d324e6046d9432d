"""The queues that train a sweep's runs: found by name and content, and asked together."""

import time
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import UserError
from harness.planning.plan import Planned
from harness.store import json_files
from slurm import backend
from slurm.backend import Backend
from slurm.known_jobs import KnownJobs
from slurm.queue import Queue, QueuedJob

LOOK_SECONDS = 2.0  # between looks for queues that were started or rewritten since


def queue_files(planned: Planned, alone: bool = False) -> list[Path]:
    """Return the files of the queues that train some of a plan's runs, oldest first; ``alone``: that train no others.

    A queue goes by the name of the command that started it, which may have selected other runs (`--only`). Those of the
    plan's own name and of its tuning count whatever they train: settings that won, or runs that the file had before.
    """
    store = planned.store
    paths = store.queues(planned.sweep_name, with_selections=True)
    if planned.plan.sweep.tune and planned.name == planned.sweep_name:
        return paths
    own = {*store.queues(planned.name), *(store.queues(planned.tuning_name) if planned.plan.sweep.tune else ())}
    return [path for path in paths if path in own or _trains(path, planned, alone)]


def _trains(path: Path, planned: Planned, alone: bool) -> bool:
    """Return whether a queue trains runs of a plan; of one that cannot be read, that is not known."""
    try:
        run_ids = Queue.read(path).run_ids
    except UserError as e:
        json_files.print_note(f"{e}; left out")
        return False
    return run_ids <= planned.plan.runs.keys() if alone else not run_ids.isdisjoint(planned.plan.runs)


@dataclass(frozen=True)
class OpenQueue:
    """A queue file as it was read, and the backend that answers for its jobs."""

    path: Path
    version: int
    queue: Queue
    jobs: Backend


@dataclass
class Queues:
    """The queues that a function finds, which looks again as others may be started."""

    find: Callable[[], Sequence[Path]]
    opened: list[OpenQueue] = field(default_factory=list)
    with_job: set[str] = field(default_factory=set)  # open and settled runs that some queue takes care of
    _next_look: float = 0.0
    _known_jobs: KnownJobs = field(default_factory=KnownJobs)

    @classmethod
    def of(cls, path: Path) -> "Queues":
        """Return the one queue of a file."""
        return cls(lambda: [path])

    def update(self) -> None:
        """Look for queues, and ask each which of its runs it takes care of.

        Raises:
            UserError: a queue file is damaged or gone.
        """
        if (begin := time.monotonic()) >= self._next_look:
            known = {(opened.path, opened.version): opened for opened in self.opened}
            self.opened = [
                known.get((path, _version(path))) or open_queue(path, self._known_jobs) for path in self.find()
            ]
            now = time.monotonic()
            self._next_look = now + max(LOOK_SECONDS, 20 * (now - begin))
        self.with_job = set().union(*(q.queue.run_ids - q.jobs.runs_without_job() for q in self.opened))

    @property
    def queued_jobs(self) -> list[QueuedJob]:
        """The jobs of all queues, in the order in which they start."""
        return [job for opened in self.opened for job in opened.queue.jobs]

    def began(self, run_ids: Set[str]) -> float | None:
        """Return when the first of these runs' queues was started; None: they have none."""
        own = (opened for opened in self.opened if not run_ids.isdisjoint(opened.queue.run_ids))
        return min((opened.version / 1e9 for opened in own), default=None)

    @property
    def at_once(self) -> int:
        """The number of jobs that run at the same time at most."""
        return sum(opened.queue.max_parallel for opened in self.opened) or 1

    def is_scheduled(self, run_id: str) -> tuple[str, str]:
        """Return the scheduler's state of a run with a job and its remark; empty where there is no scheduler."""
        answers = (q.jobs.scheduled(run_id) for q in self.opened if q.queue.cluster and run_id in q.queue.run_ids)
        return next((answer for answer in answers if answer[0]), ("", ""))


def _version(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0  # gone: reading it tells


def open_queue(path: Path, known: KnownJobs | None = None) -> OpenQueue:
    """Return a queue with the backend of its jobs, which may share the answers of SLURM with others of its store.

    Raises:
        UserError: its file is damaged or gone.
    """
    version = _version(path)  # before reading: what is written in between is read again
    return OpenQueue(path, version, Queue.read(path), backend.backend_of(path, known))

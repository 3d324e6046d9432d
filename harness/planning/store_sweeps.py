"""The sweeps of a store by their queues: what runs or waits, whatever a sweep file says by now."""

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.phrases import plural
from harness.planning.plan import Planned
from harness.planning.queues import OpenQueue, open_queue
from harness.planning.run_states import ACTIVE, Row, RunStates, counts_text, row_texts
from harness.spec.run_labels import science_labels
from harness.spec.science import Science
from harness.spec.tasks import TaskInfo, classification
from harness.store import json_files, ownership
from harness.store.store import Store
from slurm.known_jobs import KnownJobs
from slurm.queue import Queue, QueuedJob, QueuedRun

# A selection (`--only`, `--set`) and a tuning have marks of their own after the sweep's name.
_QUEUE_NAME = re.compile(r"(.+?)(-[0-9a-f]{6})?(-tuning)?-[0-9a-f]{8}")
_OF_TUNING = re.compile(r".+-tuning-[0-9a-f]{8}")


@dataclass(frozen=True)
class StoreSweep:
    """A sweep of a store: the runs of its queues, those of other selections and of its file before a change too."""

    name: str
    counts: Counter[str]
    active: list[Row]  # runs in training and waiting ones
    since: float  # the first start of a queue with open runs, in seconds since 1970
    users: tuple[str, ...]  # who started these queues
    task: TaskInfo

    @property
    def is_finished(self) -> bool:
        return self.counts.keys() <= {"done", "failed"}

    def head(self) -> str:
        """Return the sweep's name with the number of its runs in each state."""
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        return f"{self.name}: {counts_text(self.counts)}; started {since} by {', '.join(self.users)}"

    def to_json(self) -> dict[str, Any]:
        fields = ("counts", "since", "users")
        return {"sweep": self.name, **{key: getattr(self, key) for key in fields}, "runs": self.active}


@dataclass
class StoreSweeps:
    """The sweeps of a store. What SLURM has answered is for all of them, and is kept between two looks,
    as ``poll_seconds`` say."""

    store: Store
    _opened: dict[tuple[Path, int], OpenQueue] = field(default_factory=dict)
    _known_jobs: KnownJobs = field(default_factory=KnownJobs)

    def look(self) -> list[StoreSweep]:
        """Return the sweeps that have queues: active ones first, finished ones last, and by name."""
        done, failed = self.store.done_ids(), self.store.failed_ids()
        settled = done | failed
        by_name: dict[str, list[tuple[Path, int, Queue]]] = {}
        for path in self.store.all_queues():
            if name := _QUEUE_NAME.fullmatch(path.stem):
                try:
                    version = path.stat().st_mtime_ns
                    queue = Queue.read(path)
                    if (path, version) not in self._opened and not queue.run_ids <= settled:  # all, before any is asked
                        self._opened[path, version] = open_queue(path, self._known_jobs)
                    by_name.setdefault(name[1], []).append((path, version, queue))
                except (UserError, FileNotFoundError) as e:
                    json_files.print_note(f"{e}; left out")
        sweeps = [self._sweep(name, queues, done, failed) for name, queues in by_name.items()]
        return sorted(sweeps, key=lambda sweep: (not sweep.active, sweep.is_finished, sweep.name))

    def _sweep(self, name: str, queues: list[tuple[Path, int, Queue]], done: Set[str], failed: Set[str]) -> StoreSweep:
        run_ids = dict.fromkeys(k for *_, queue in queues for job in queue.jobs for k in job.run_ids)
        counts = Counter("done" if k in done else "failed" for k in run_ids if k in done or k in failed)
        open_runs = [k for k in run_ids if k not in done and k not in failed]
        own = [(path, version) for path, version, queue in queues if not queue.run_ids.isdisjoint(open_runs)]
        states = RunStates(self.store, [self._opened[key] for key in own])
        rows = [states.row(k, "", "to do") for k in open_runs]
        active = [row for row in rows if row["state"] in ACTIVE]
        sciences = dict(_sciences(self.store, (row["run_id"] for row in active)))
        teachers = {k for *_, queue in queues for job in queue.jobs for k in job.all_needs}
        labels = science_labels(sciences, teachers)
        names = {run.run_id: _name(job, run) for *_, queue in queues for job in queue.jobs for run in job.runs}
        for row in active:
            row["label"] = labels.get(row["run_id"]) or names[row["run_id"]]
        since = min((version for _, version in own), default=0) / 1e9
        users = tuple(dict.fromkeys(_owner(path) for path, _ in own))
        task = next((science.dataset.info.task for science in sciences.values()), classification.TASK)
        counts.update(row["state"] for row in rows)
        return StoreSweep(name, counts, active, since, users, task)


def overview(sweeps: Iterable[StoreSweep]) -> Iterator[tuple[str, int]]:
    """Yield lines about a store's sweeps, each with the columns by which its continuation is indented."""
    sweeps = list(sweeps)
    if not any(sweep.active for sweep in sweeps):
        yield "nothing runs or waits", 2
    for sweep in sweeps:
        if not sweep.is_finished:
            yield sweep.head(), 2
        yield from ((f"  {text}", hang) for text, hang in row_texts(sweep.active, sweep.task))
    if finished := sum(sweep.is_finished for sweep in sweeps):
        yield plural(finished, "finished sweep"), 2


def note_of_other_runs(planned: Planned, command: str) -> str:
    """Return a line about active runs under a sweep's name that its file does not have, or not any more; empty where
    there is none. A tuning's are the sweep's own, and change as it proceeds.
    """
    store = planned.store
    settled = store.done_ids() | store.failed_ids() | planned.plan.runs.keys()
    opened, others = list[OpenQueue](), dict[str, None]()
    for path in [] if planned.plan.sweep.tune else store.queues(planned.sweep_name, with_selections=True):
        with suppress(UserError):  # whoever needs this queue is told
            if not _OF_TUNING.fullmatch(path.stem) and (left := Queue.read(path).run_ids - settled):
                opened.append(open_queue(path))
                others |= dict.fromkeys(left)
    states = RunStates(store, opened)
    if not (active := sum(states.row(k, "", "to do")["state"] in ACTIVE for k in others)):
        return ""
    still = "still runs or waits" if active == 1 else "still run or wait"
    return f"note: {plural(active, 'run')} of another version or selection of this sweep {still}: {command}"


def labels_of_runs(store: Store, run_ids: Iterable[str]) -> dict[str, str]:
    """Return a store's runs with their names for people, ``?`` where a run's science cannot be read."""
    run_ids = sorted(run_ids)
    return dict.fromkeys(run_ids, "?") | science_labels(dict(_sciences(store, run_ids)))


def _sciences(store: Store, run_ids: Iterable[str]) -> Iterator[tuple[str, Science]]:
    for run_id in run_ids:
        try:
            yield run_id, store.read_science(run_id)
        except (UserError, OSError) as e:
            json_files.print_note(str(e))


def _name(job: QueuedJob, run: QueuedRun) -> str:
    """Return what a queue knows of a run, whose science may be unreadable."""
    return f"{job.teacher} > {job.student} / {run.method}" if run.has_teacher else f"{job.student} / {run.method}"


def _owner(path: Path) -> str:
    with suppress(FileNotFoundError):
        return ownership.user_name(path.stat().st_uid)
    return "?"

"""The progress of a sweep's runs, read from the store and asked of its queues."""

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from harness.errors import UserError
from harness.planning.cost.expected_jobs import Forecast
from harness.planning.cost.time_left import SeenRun, seconds_left
from harness.planning.plan import Planned
from harness.planning.queues import Queues
from harness.spec.science import Science
from slurm.queue import WAITS_IN_ITS_JOB, QueuedJob

TO_START = "to start"
FREE_PLACE = "for a free place"
IN_SLURM = "in SLURM's queue"
NO_JOB = "without a job"


class EndedRun(NamedTuple):
    """The times of a run with a record, in seconds since 1970, and whether it diverged."""

    process_began: float
    ended: float
    seconds: float  # that it has cost
    attempts: int
    diverged: bool


class SweepProgress:
    """The runs that a sweep watches: those of its plan, or of its tuning while that is at work."""

    def __init__(self, planned: Planned):
        self.planned, self.store, self.task = planned, planned.store, planned.info.task
        self.labels = {k: run.label for k, run in planned.plan.runs.items()}
        self.states: dict[str, str] = {}
        self.open: set[str] = set()
        self.settled: list[str] = []  # since the last update
        self.watched: set[str] = set()  # that were open at any time
        self.running: dict[str, dict[str, Any]] = {}
        self.waiting: Counter[str] = Counter()
        self.ended: dict[str, EndedRun] = {}
        self.told_causes: set[tuple[str, ...]] = set()  # of failures, with their logs' ends
        self.began = time.time()
        self.left: float | None = None
        self._over: set[str] = set()  # runs of the whole store that are done or failed
        self._queued: dict[str, None] = {}
        self._sciences: dict[str, Science] = {k: run.science for k, run in planned.plan.runs.items()}
        self._forecast = Forecast(self.store, planned.plan.sweep.dataset.reference)
        self._first_seen: dict[str, float] = {}
        self._look()
        self.watched = set(self.open)

    @property
    def counts(self) -> Counter[str]:
        """The number of runs in each state."""
        return Counter(self.states.values())

    @property
    def training(self) -> list[str]:
        """The runs in training, without those whose job has them but trains others of its runs first."""
        return [k for k in self.running if self._is_training(k)]

    def update(self, queues: Queues) -> None:
        """Look at every run. The queues were asked before, so that no result is missed."""
        self._include(queues)
        before = self.open
        self._look()
        self.watched |= self.open
        self.settled = [k for k in self.labels if k in before and k not in self.open]
        self.running = {k: self.store.progress(k) for k in self.open if self.store.is_running(k)}
        for run_id in self.running:
            self._first_seen.setdefault(run_id, time.monotonic())
        self.waiting = Counter(self._reasons(queues))
        if self.open and (began := queues.began(self.watched)):
            self.began = began
        self._read_ended()
        self.left = self._seconds_left(queues)

    def _look(self) -> None:
        done, failed = self.store.done_ids(), self.store.failed_ids()
        self._over = {*done, *failed}
        self.states = {k: "done" if k in done else "failed" if k in failed else "to do" for k in self.labels}
        self.open = {k for k, state in self.states.items() if state == "to do"}

    def _include(self, queues: Queues) -> None:
        """Watch what a tuning trains, instead of the runs with the file's own settings that nothing trains."""
        if not self.planned.plan.sweep.tune or not queues.with_job:
            return
        active = [o.queue for o in queues.opened if not o.queue.run_ids.isdisjoint(queues.with_job)]
        self._queued |= dict.fromkeys(k for queue in active for job in queue.jobs for k in job.run_ids)
        teachers = {k for job in queues.queued_jobs for k in job.all_needs}
        self.labels = {k: self.labels.get(k) or self._label(k, k in teachers) for k in self._queued}
        self.watched &= self.labels.keys()

    def _label(self, run_id: str, is_teacher: bool) -> str:
        """Return a label of a run that is not of the plan: a trial, whose number only the tuning knows."""
        science = self._sciences[run_id] = self.store.read_science(run_id)
        if is_teacher:
            return f"teacher {science.student} / seed {science.seed}"
        teacher = f"{science.teacher_model} > " if science.teacher_model else ""
        return f"{teacher}{science.student} / {science.method.use} {run_id[:6]} / seed {science.seed}"

    # waiting -----------------------------------------------------------------------------------------------------

    def _reasons(self, queues: Queues) -> Iterable[str]:
        """Yield what each open run waits for that is not in training."""
        running = [any(k in self.running for k in job.run_ids) for job in queues.queued_jobs]
        free = queues.at_once - sum(running)
        for job, is_running in zip(queues.queued_jobs, running, strict=True):
            if waiting := [k for k in job.run_ids if k in self.open and not self._is_training(k)]:
                reason = self._reason(job, waiting[0], is_running, queues, free > 0)
                free -= reason == TO_START
                yield from [reason] * len(waiting)
        queued = {k for job in queues.queued_jobs for k in job.run_ids}
        yield from (NO_JOB for k in self.open - queued if k not in self.running)

    def _reason(self, job: QueuedJob, run_id: str, is_running: bool, queues: Queues, is_place_free: bool) -> str:
        if is_running:
            return WAITS_IN_ITS_JOB.removeprefix("waits ")
        if run_id not in queues.with_job:
            return NO_JOB
        if needs := [k for k in job.all_needs if k in self.open]:
            return f"for {self.labels[needs[0]]}"
        state, remark = queues.is_scheduled(run_id)
        if state == "pending":
            return f"{IN_SLURM}: {remark.rpartition(', job ')[0] or remark}"
        return TO_START if state in ("running", "suspended") or is_place_free else FREE_PLACE

    def _is_training(self, run_id: str) -> bool:
        return run_id in self.running and bool(self.running[run_id] or self.store.attempts(run_id))

    # time --------------------------------------------------------------------------------------------------------

    def _read_ended(self) -> None:
        """Read the times of runs that have a record since the last look."""
        if new := [k for k, state in self.states.items() if state == "done" and k not in self.ended]:
            from harness.store import records  # waits for pyarrow

            columns = ("run_id", "started_at", "finished_at", "cost_total_s", "attempts", "status")
            try:
                rows = records.read_records(self.store, new, columns).to_pylist()
            except UserError:
                return  # whoever reads the table is told
            for row in rows:
                times = row["started_at"].timestamp(), row["finished_at"].timestamp(), row["cost_total_s"]
                self.ended[row["run_id"]] = EndedRun(*times, row["attempts"], row["status"] == "diverged")

    def _seconds_left(self, queues: Queues) -> float | None:
        opened = [o.queue for o in queues.opened if not o.queue.run_ids.isdisjoint(self.open)]
        if not opened:
            return None
        for run_id in {k for queue in opened for k in queue.run_ids} - self._sciences.keys():
            self._sciences[run_id] = self.store.read_science(run_id)
        jobs = self._forecast.jobs(opened, self._sciences, len(self.ended))
        return seconds_left(jobs, self._seen(), queues.at_once) if jobs else None

    def _seen(self) -> dict[str, SeenRun]:
        now = time.monotonic()
        seen = {k: SeenRun(is_over=True) for k in self._over & self._sciences.keys()}
        for run_id, run in self.ended.items():
            is_whole = run.attempts == 1 and not run.diverged
            seen[run_id] = SeenRun(True, process=(run.process_began, run.ended) if is_whole else None)
        for run_id, progress in self.running.items():
            if self._is_training(run_id):
                fraction, left = progress.get("fraction", 0.0), progress.get("seconds_left")
                seen[run_id] = SeenRun(False, fraction, left, now - self._first_seen[run_id])
        return seen

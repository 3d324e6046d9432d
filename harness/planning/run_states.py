"""The states of runs as the store, their queues and a scheduler know them, and the lines that show them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.console.terminal import duration
from harness.errors import printable
from harness.phrases import plural
from harness.planning.queues import OpenQueue
from harness.store.run_notes import last_retry
from harness.store.store import Store
from slurm.queue import WAITS_IN_ITS_JOB

if TYPE_CHECKING:
    from harness.spec.tasks import TaskInfo

TRAINING = ("running", "suspended")  # has a process, which SLURM may have stopped for another job
ACTIVE = (*TRAINING, "pending")
WAITS_ITS_TURN = "waits for its turn"  # of a run that a dispatcher on this machine will start

Row = dict[str, Any]  # a run's state and what is known besides, as `status --json` prints it


@dataclass(frozen=True)
class RunStates:
    """The states of a store's runs, asked of the queues that may train them."""

    store: Store
    queues: Sequence[OpenQueue]

    def row(self, run_id: str, label: str, state: str) -> Row:
        """Return a run's state, refined from ``state``, which the store's files tell: done, failed or to do."""
        store = self.store
        row: Row = {"run_id": run_id, "label": label, "state": state}
        if state == "failed" and (failure := store.failure(run_id)):
            return row | {"kind": failure.kind, "cause": failure.cause}
        if state != "to do":
            return row
        answers = (opened.jobs.scheduled(run_id) for opened in self.queues)
        state, remark = next((answer for answer in answers if answer[0]), (state, ""))
        attempts = store.attempts(run_id)
        started = len(attempts)
        if store.is_running(run_id):
            state = "suspended" if state == "suspended" else "running"
            state, remark = (state, remark) if started else ("pending", WAITS_IN_ITS_JOB)
        elif state == "to do" and run_id in self._waiting_here:
            state, remark = "pending", WAITS_ITS_TURN
        row["state"] = state
        if remark:
            row["remark"] = remark
        if state in TRAINING and started:
            row |= store.progress(run_id)
        if requeued := started - (state in TRAINING):
            row["requeued"] = max(0, requeued)
        if retry := last_retry(attempts):
            row["retry"] = retry
        return row

    @cached_property
    def _waiting_here(self) -> set[str]:
        """The runs that a dispatcher on this machine trains or will start."""
        local = (opened for opened in self.queues if opened.queue.cluster is None)
        return set().union(*(opened.queue.run_ids - opened.jobs.runs_without_job() for opened in local))


def row_texts(rows: Sequence[Row], task: "TaskInfo") -> Iterator[tuple[str, int]]:
    """Yield a line for each run, and the column at which its label begins."""
    width = max((len(row["state"]) for row in rows), default=0)
    for row in rows:
        head = f"{row['run_id']}  {row['state']:{width}}  "
        yield printable(f"{head}{row['label']}  {', '.join(details(row, task))}".rstrip()), len(head)


def details(row: Row, task: "TaskInfo") -> Iterator[str]:
    """Yield what is known of a run besides its state."""
    if "cause" in row:
        yield row["cause"]
    if "diverged" in row:
        yield "diverged"
    if "epoch" in row:
        stage = "first stage, " if row.get("stage") == "first" else ""
        yield f"{stage}epoch {min(row['epoch'] + 1, row['epochs'])}/{row['epochs']}"
        if (score := row.get(task.score)) is not None:
            yield f"{task.shown} {score:.2f} %"
        if row["seconds_left"] is not None:
            yield f"{duration(row['seconds_left'])} left"
    if "remark" in row:
        yield row["remark"]
    if times := row.get("requeued"):
        yield f"requeued {plural(times, 'time')}"
    if "retry" in row:
        yield row["retry"]


def counts_text(counts: Mapping[str, int]) -> str:
    """Return ``1 to do, 2 running, 3 done``."""
    return ", ".join(f"{counts[state]} {state}" for state in sorted(counts, key=_order) if counts[state])


def count_states(rows: Sequence[Row]) -> Counter[str]:
    """Return the number of runs in each state."""
    return Counter(row["state"] for row in rows)


def _order(state: str) -> int:
    """Return a state's place in the life of a run; interruptions come in the middle."""
    known = ("to do", "pending", "running", "done", "failed")
    return known.index(state) if state in known else 2

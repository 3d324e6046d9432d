"""Live progress of a sweep, read from the store: watching can stop and start again at any time."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.console.terminal import console, duration, escape_output
from harness.errors import printable, printable_lines
from harness.phrases import plural
from harness.planning.plan import Planned
from harness.store import files
from slurm import backend
from slurm.queue import WAITS_IN_ITS_JOB, Queue, cancelled_file

REFRESH_SECONDS = 0.5
RESTARTS = 3


def watch(planned: Planned, queue_files: Sequence[Path], restart: bool) -> None:
    """Show progress until every run is done or failed, or until no queue trains the rest any more.

    With ``restart``, runs whose jobs were lost (killed, preempted, their node gone) are started again by the last
    queue, up to RESTARTS times in a row without any run ending. Runs that a cluster could not take yet are started as
    others end.

    Raises:
        KeyboardInterrupt: ctrl-C; the jobs continue.
    """
    stderr = console()
    view = _View(planned)
    queues = [(Queue.read(path).run_ids, backend.backend_of(path)) for path in queue_files]
    restarts = 0
    with Live(console=stderr, transient=True) as live:  # shows nothing where stderr is no terminal
        escape_output()  # rich reads commands in what is printed from here on
        while True:
            # Asked before the states, so that no result is missed.
            taken = set().union(*(run_ids - jobs.runs_without_job() for run_ids, jobs in queues))
            view.update()
            for line in view.news():
                stderr.print(line, soft_wrap=True)
                restarts = 0
            live.update(view.screen())
            if not view.open:
                return
            lost = view.open - taken - set(view.running)
            if lost and restart and restarts < RESTARTS and not cancelled_file(queue_files[-1]).exists():
                restarts += queues[-1][1].start() < len(lost)  # not counted when the cluster could take none of them
                time.sleep(1)
            elif lost == view.open:
                root = planned.store.root
                is_full = restart and files.is_disk_full(root)  # who only looks writes nothing
                full = f"{root}: no space left on the disk; " if is_full else ""
                text = f"{full}nothing trains the remaining {plural(len(lost), 'run')}; run the sweep again"
                stderr.print(Text(text + _last_line(queue_files[-1].with_suffix(".log"))), soft_wrap=True)
                return
            time.sleep(REFRESH_SECONDS)


def _last_line(log: Path) -> str:
    """Return what a queue's log ends with, which may say why nothing trains; empty where it says nothing."""
    lines = files.tail(log).splitlines() if log.is_file() else []
    return f"; the end of {log}: {printable(lines[-1])}" if lines else ""


class _View:
    def __init__(self, planned: Planned):
        self.planned, self.store, self.task = planned, planned.store, planned.info.task
        self.began = time.monotonic()
        self.states = planned.states()
        self.open = {k for k, s in self.states.items() if s == "to do"}
        self.total = len(self.open)
        self.running: dict[str, dict[str, Any]] = {}
        self.settled: list[str] = []

    def update(self) -> None:
        before = self.open
        self.states = self.planned.states()
        self.open = {k for k in before if self.states[k] == "to do"}
        self.settled = [k for k in self.planned.plan.runs if k in before and k not in self.open]
        self.running = {k: self.store.progress(k) for k in self.open if self.store.is_running(k)}

    def news(self) -> list[Text]:
        """Return a line for each run that ended since the last update, with cause and log's end where it failed."""
        lines = []
        finished = self.total - len(self.open) - len(self.settled)
        for run_id in self.settled:
            finished += 1
            label = printable(self.planned.plan.runs[run_id].label)
            head = f"[{finished}/{self.total}] {label}"
            if self.states[run_id] == "failed":
                failure = self.store.failure(run_id)
                lines.append(Text(f"{head}: FAILED: {printable(failure.cause) if failure else '?'}", style="red"))
                if failure and failure.details:
                    details = printable_lines(failure.details).strip().split("\n")[-5:]
                    lines.append(Text("    " + "\n    ".join(details), style="dim"))
            else:
                score = self.store.progress(run_id).get(self.task.score)
                lines.append(Text(f"{head}: " + ("diverged" if score is None else f"{self.task.shown} {score:.2f} %")))
        return lines

    def screen(self) -> Group:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("running", "epoch", self.task.shown, "", "left"):
            table.add_column(name)
        runs = self.planned.plan.runs
        for run_id, progress in sorted(self.running.items(), key=lambda item: runs[item[0]].label):
            label = printable(runs[run_id].label)
            if not progress:
                table.add_row(Text(label), "starting" if self.store.attempts(run_id) else WAITS_IN_ITS_JOB)
                continue
            score = f"{progress[self.task.score]:.2f}" if progress.get(self.task.score) is not None else ""
            stage = "first stage " if progress.get("stage") == "first" else ""
            epoch = f"{stage}{min(progress['epoch'] + 1, progress['epochs']):.0f}/{progress['epochs']}"
            bar = ProgressBar(total=1.0, completed=progress["fraction"], width=20)
            table.add_row(Text(label), epoch, score, bar, duration(progress.get("seconds_left")))
        count = Counter(self.states.values())
        finished = self.total - len(self.open) + sum(p.get("fraction", 0.0) for p in self.running.values())
        elapsed = time.monotonic() - self.began
        left = elapsed * (self.total - finished) / finished if finished > 0.5 else None
        head = f"{count['done']} done, {count['failed']} failed, {len(self.running)} running, {len(self.open)} to go"
        bar = ProgressBar(total=max(1.0, self.total), completed=finished, width=40)
        line = Table.grid(padding=(0, 2))
        line.add_row(bar, head, f"{duration(elapsed)} elapsed", f"about {duration(left)} left" if left else "")
        return Group(table, line)

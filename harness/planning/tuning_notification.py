"""Notification of a tuning: its command lives as long as it does, and tells of all rounds and the final runs together.

A queue tells of a submission, and here each round is one.
"""

import os
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness.errors import one_line
from harness.phrases import plural
from harness.planning.plan import Planned
from harness.store.tuning_log import TuningLog
from slurm.notification import run_command
from slurm.queue import Notification, cancelled_file


@dataclass
class TuningNotification:
    """The user's command, which is run once for each event, and not before something was submitted."""

    notify: Notification
    cluster: str | None
    _has_begun: bool = False
    _told: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, command: str, base: Planned, cluster: str | None) -> "TuningNotification":
        """Return the notification by a command, run in the current folder, of a tuning that begins now."""
        return cls(Notification(command, os.getcwd(), base.name, len(base.plan.runs), 0, 0, time.time_ns()), cluster)

    def of_stage(self, planned: Planned, run_ids: Set[str], queue_file: Path, part: str) -> Callable[[str], None]:
        """Return the function by which whoever watches a queue tells of these runs, a ``part`` of the tuning.

        Its argument is why nothing goes on, if that is so.
        """
        self._has_begun = True
        return partial(self._tell_stage, planned, run_ids, queue_file, part)

    def _tell_stage(self, planned: Planned, run_ids: Set[str], queue_file: Path, part: str, why_stuck: str) -> None:
        store = planned.store
        failed = (store.failed_ids() - store.done_ids()) & run_ids
        if first := next((k for k in planned.plan.runs if k in failed), None):
            failure = store.failure(first)
            cause = one_line(failure.cause if failure else "unknown cause", 200)
            self._tell("failed", f"first failure, in {part}: {planned.plan.runs[first].label} ({first}): {cause}")
        if why_stuck and not cancelled_file(queue_file).exists():
            self._tell("stuck", f"stuck in {part}: {why_stuck}")

    def tell_end(self, log: TuningLog, final: Mapping[str, str], is_done: bool) -> None:
        """Tell how it has ended. ``final`` has the states of the final runs, if they were to be trained.

        Runs that nothing trains any more were told when that was seen.
        """
        if "to do" in final.values():
            return
        failed = sum(trial.state == "failed" for trial in log.trials)
        counts = plural(len(log.trials), "trial") + (f", {failed:,} of them failed" if failed else "")
        if final:
            done = sum(state == "done" for state in final.values())
            counts += f", {done:,} of {plural(len(final), 'final run')} done"
        self._tell(*(("done", f"all done, {counts}") if is_done else ("stuck", f"stuck: {counts}")))

    def tell_error(self, error: Exception) -> None:
        """Tell that it has ended by an error."""
        self._tell("stuck", f"stuck: {one_line(error, 200)}")

    def _tell(self, event: str, text: str) -> None:
        if self._has_begun and event not in self._told:
            self._told.add(event)
            run_command(event, self.notify, self.cluster, f"tuning: {text}")

"""Teachers trained in the store whose weights have been deleted since, or whose record alone was brought there."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from harness.phrases import plural
from harness.planning.plan import Planned


@dataclass(frozen=True)
class LostTeacher:
    """A finished run without weights, which runs that are left to train need."""

    label: str
    run_id: str
    file: Path
    learners: int

    def __str__(self) -> str:
        return (
            f"teacher {self.label}: the record of its run {self.run_id} is here but its weights are not ({self.file}): "
            f"{plural(self.learners, 'run')} to do cannot learn from it; restore the file, take it from another "
            "store with harness.merge, or train in another store (--results)"
        )


def lost_teachers(planned: Planned, to_do: Collection[str]) -> list[LostTeacher]:
    """Return the teachers' runs that have a record but no weights, and that runs to do need."""
    store, runs, learners = planned.store, planned.plan.runs, dict[str, int]()
    for run_id in sorted(to_do):
        for teacher_run in runs[run_id].science.teacher_runs:
            learners[teacher_run] = learners.get(teacher_run, 0) + 1
    needed = learners.keys() & store.done_ids() if learners else set()
    lost = (k for k in sorted(needed) if not store.student_weights(k).exists())
    return [LostTeacher(runs[k].science.student, k, store.student_weights(k), learners[k]) for k in lost]

"""Teachers' runs that a queue needs and nobody will train: their records were removed after the sweep was submitted."""

from collections.abc import Set

from harness.store.store import Store
from slurm.queue import QueuedJob


def is_missing(store: Store, queued: Set[str], run_id: str) -> bool:
    """Return whether a needed run has no result, and is neither among the queue's runs nor in training anywhere."""
    if run_id in queued or store.is_running(run_id):
        return False
    return run_id not in store.done_ids() | store.failed_ids()  # after the lock, in case it has just ended elsewhere


def fail_learners(store: Store, job: QueuedJob, teacher_run: str) -> set[str]:
    """Write a failure for the runs of a job that need its missing teacher, and return them."""
    learners = {run.run_id for run in job.runs if run.has_teacher}
    cause = f"its teacher's run {teacher_run} has no record any more: run the sweep again with --retry-failed"
    for run_id in sorted(learners):
        store.write_failure(run_id, "teacher", cause, "", "")
    return learners

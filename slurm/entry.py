"""The function that submitit runs in a job. Its arguments are plain values: nothing of ours is pickled into code."""

import os
import signal
from pathlib import Path
from typing import Any

from harness.store.store import Store
from slurm.local import tail

# How SLURM says in a job's log, with cgroups and without, that a process was killed for its memory.
OUT_OF_MEMORY = ("oom-kill", "oom_kill", "exceeded memory limit", "exceeded job memory limit", "out of memory")


def _give_up_hopeless(store: Store, run_ids: list[str], max_attempts: int, log: str) -> None:
    """Runs that were started so often without a result get a failure, so that a requeue cannot go on for ever."""
    for run_id in set(run_ids) - store.done_ids() - store.failed_ids():
        if (count := len(store.tries(run_id))) >= max_attempts:
            last = tail(Path(store.attempts(run_id)[-1]["log"]))
            cause = f"no result after {count} attempts"
            if any(words in last.lower() for words in OUT_OF_MEMORY):
                cause += ", out of memory: raise `mem_gb` in the profile"
            store.write_failure(run_id, "killed", cause, last, log)
            print(f"{run_id}: {cause}: given up", flush=True)


def run(spec: dict[str, Any], max_attempts: int | None = None) -> None:
    """Trains one pack; ``spec`` holds the fields of ``harness.training.job.PackJob`` but for the log's path.

    USR2 (the time limit is near) and TERM (preempted, cancelled) end it after the running step with every run
    checkpointed. After USR2 the job puts itself back into SLURM's queue; whether to after TERM is SLURM's to decide.
    """
    told: list[int] = []
    for signum in (signal.SIGUSR2, signal.SIGTERM):  # in place of submitit's, which would leave in mid-step
        signal.signal(signum, lambda s, _: told.append(s))

    import submitit

    from harness.training.job import PackJob, run_pack

    log = str(submitit.JobEnvironment().paths.stdout)
    if max_attempts is not None:
        _give_up_hopeless(Store(Path(spec["store"])), spec["run_ids"], max_attempts, log)
    finished = run_pack(PackJob(**{**spec, "run_ids": tuple(spec["run_ids"])}, log=log), lambda: bool(told))
    if not finished and signal.SIGUSR2 in told and "SLURM_JOB_ID" in os.environ:
        from slurm import commands

        commands.requeue(os.environ["SLURM_JOB_ID"])

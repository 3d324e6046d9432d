"""The function that submitit runs in a job. Its arguments are plain values: nothing of ours is pickled into code."""

import os
import signal
from typing import Any


def run(spec: dict[str, Any]) -> None:
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
    finished = run_pack(PackJob(**{**spec, "run_ids": tuple(spec["run_ids"])}, log=log), lambda: bool(told))
    if not finished and signal.SIGUSR2 in told and "SLURM_JOB_ID" in os.environ:
        from slurm import commands

        commands.requeue(os.environ["SLURM_JOB_ID"])

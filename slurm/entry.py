"""The function that submitit runs in a job. Its arguments are plain values: nothing of ours is pickled into code."""

from typing import Any


def run(spec: dict[str, Any]) -> None:
    """Trains one pack; ``spec`` holds the fields of ``harness.training.job.PackJob`` but for the log's path."""
    import submitit

    from harness.training.job import PackJob, run_pack

    log = str(submitit.JobEnvironment().paths.stdout)
    run_pack(PackJob(**{**spec, "run_ids": tuple(spec["run_ids"])}, log=log))

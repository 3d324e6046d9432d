"""Checks of a cluster's jobs before anything is submitted: whether their processes can share a run."""

from collections.abc import Iterable
from importlib.util import find_spec

from harness.errors import UserError
from harness.spec.optimizers import check_deepspeed
from slurm.queue import QueuedJob


def check_batches(job: QueuedJob, processes: int, cluster: str) -> None:
    """Check that every process has an image of every micro-batch, even of an epoch's last and smallest batch.

    Raises:
        UserError: naming the ``cluster`` and the numbers.
    """
    if processes == 1:
        return
    images, batch = job.train_images, job.batch_size
    parts = max(run.accumulate for run in job.runs)
    if (smallest := images % batch or batch) // processes < parts:
        in_parts = f" and take batches in {parts} parts (`accumulate`)" if parts > 1 else ""
        raise UserError(
            f"{cluster}: {processes} processes share a run (`nodes` x `tasks_per_node`)"
            f"{in_parts}, but the last batch of {images} images in batches of {batch} has {smallest}; use fewer "
            "processes, or another `batch_size` in the recipe (which makes it another run)"
        )


def check_optimizers(optimizers: Iterable[str], zero_stage: int) -> None:
    """Check that DeepSpeed can train with optimisers.

    Raises:
        UserError: with one of them it cannot.
    """
    for optimizer in optimizers:
        check_deepspeed(optimizer, zero_stage)


def check_installed(cluster: str) -> None:
    """Check that DeepSpeed is installed here, for jobs that start this Python.

    Raises:
        UserError: it is not.
    """
    if find_spec("deepspeed") is None:
        raise UserError(
            f"{cluster}: engine deepspeed is not installed here: pip install 'kd-harness[deepspeed]', "
            "or use engine native"
        )

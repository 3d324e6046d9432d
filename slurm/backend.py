"""Backends: what the commands ask of a queue, whether its jobs run on this machine or on a cluster."""

from pathlib import Path
from typing import Protocol

from slurm import local
from slurm.known_jobs import KnownJobs
from slurm.queue import Queue


class Backend(Protocol):
    def start(self) -> int:
        """Start every open run that has no job. Anyone may call it at any time.

        Returns:
            The number of runs that are left for later, because the cluster takes no more jobs now.
        """

    def runs_without_job(self) -> set[str]:
        """Return this queue's open runs that have neither a job nor a process that will start one."""

    def cancel(self) -> bool:
        """End the queue's jobs; False when there are none."""

    def scheduled(self, run_id: str) -> tuple[str, str]:
        """Return the scheduler's state of an open run and its remark; empty when it knows no job of it."""


def backend_of(queue_file: Path, known: KnownJobs | None = None) -> Backend:
    """Return the backend of a queue file; ``known``: the answers of SLURM that queues of its store share.

    Raises:
        UserError: the file is damaged.
    """
    if Queue.read(queue_file).cluster is None:
        return local.Local(queue_file)
    from slurm.cluster import Cluster

    return Cluster(queue_file, known=known or KnownJobs())

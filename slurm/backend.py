"""Where a queue's jobs run: on this machine or on a cluster. What the commands ask of either."""

from pathlib import Path
from typing import Protocol

from slurm import local
from slurm.queue import Queue


class Backend(Protocol):
    def start(self) -> None:
        """Gets every open run going that is not; safe to call at any time, by anyone."""

    def is_alive(self) -> bool:
        """Whether something is still going to train this queue's open runs."""

    def cancel(self) -> bool:
        """Ends the queue's jobs; False when there are none."""

    def remark(self, run_id: str) -> str:
        """What the scheduler says of an open run; empty when it says nothing."""


def of(queue_file: Path) -> Backend:
    """The backend of a queue file.

    Raises:
        UserError: the file is damaged, or names a cluster profile that is gone.
    """
    if Queue.read(queue_file).cluster is None:
        return local.Local(queue_file)
    from slurm.cluster import Cluster

    return Cluster(queue_file)

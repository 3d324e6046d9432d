"""Where a queue's jobs run: on this machine or on a cluster. What the commands ask of either."""

from pathlib import Path
from typing import Protocol

from slurm import local
from slurm.queue import Queue


class Backend(Protocol):
    def start(self) -> int:
        """Gets every open run going that is not; safe to call at any time, by anyone.

        Returns:
            How many runs had to be left for later, as the cluster takes no more jobs now.
        """

    def neglected(self) -> set[str]:
        """This queue's open runs that nothing is going to train."""

    def cancel(self) -> bool:
        """Ends the queue's jobs; False when there are none."""

    def scheduled(self, run_id: str) -> tuple[str, str]:
        """The state of an open run and a remark on it, as the scheduler has them; empty when it says nothing."""


def backend_of(queue_file: Path) -> Backend:
    """The backend of a queue file.

    Raises:
        UserError: the file is damaged, or names a cluster profile that is gone.
    """
    if Queue.read(queue_file).cluster is None:
        return local.Local(queue_file)
    from slurm.cluster import Cluster

    return Cluster(queue_file)

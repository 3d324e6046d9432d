"""A real SLURM on one machine: slurmctld, slurmdbd with MariaDB, munge and several slurmd, all in one private folder.

    python -m slurm.loopback up --nodes 4      prints what to export, e.g. eval "$(python -m slurm.loopback up)"
    python -m slurm.loopback status
    python -m slurm.loopback down

Everything is on 127.0.0.1 with ports chosen at start, and nothing in /etc is read or written, so clusters live side by
side and beside a real one. It is a cluster for one user, the one who starts it, who needs no rights for it.
Written for the slurm-wlm 22.05 of Debian 12. The tests ran there as root; as an ordinary user, the same was tried by
hand: up, jobs, accounting, a killed node and its return, requeue, down.
"""

from slurm.loopback.cluster import Loopback

__all__ = ["Loopback"]

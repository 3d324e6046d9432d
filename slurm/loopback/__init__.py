"""A real SLURM on one machine: slurmctld, slurmdbd with MariaDB, munge and several slurmd, all in one private folder.

    python -m slurm.loopback up --nodes 4      prints what to export, e.g. eval "$(python -m slurm.loopback up)"
    python -m slurm.loopback status
    python -m slurm.loopback down

Everything is on 127.0.0.1 with ports chosen at start, and nothing in /etc is read or written, so several clusters can
run on one machine, next to a real one. A cluster serves one user, who starts it and needs no special rights.
It was written for the slurm-wlm 22.05 of Debian 12. The tests ran there as root; as an ordinary user, these were tried
by hand: up, jobs, accounting, a killed node and its return, requeue, down.
"""

from slurm.loopback.cluster import Loopback

__all__ = ["Loopback"]

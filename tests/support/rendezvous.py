"""A meeting of processes on this machine, as a job on a cluster prepares it."""

import secrets
from pathlib import Path

from harness.training.distributed import rendezvous


def new_rendezvous(folder: Path) -> dict[str, str]:
    """Create a file through which processes meet; return the variables that say so."""
    file = folder / f"rendezvous-{secrets.token_hex(4)}"
    rendezvous.create_rendezvous(file)
    return {rendezvous.FILE: str(file), "GLOO_SOCKET_IFNAME": "lo"}

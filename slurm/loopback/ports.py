"""Free TCP ports on loopback, kept from other clusters until the daemons bind them."""

import errno
import random
import socket
from pathlib import Path

from harness.errors import UserError

LOOPBACK = "127.0.0.1"


def _candidates() -> range:
    """Below the kernel's ephemeral range, so that no outgoing connection takes a port while its daemon is down."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        first = 32768
    return range(12000, first) if first > 14000 else range(20000, 32000)


class Reservation:
    """Holds free ports, bound but not listening; ``release`` right before the daemon that wants them starts."""

    def __init__(self, count: int) -> None:
        self._held: dict[int, socket.socket] = {}
        candidates = _candidates()
        for _ in range(200 * count):
            if len(self._held) == count:
                break
            port = random.SystemRandom().choice(candidates)
            if port in self._held:
                continue
            if (taken := _bind(port)) is not None:
                self._held[port] = taken
        else:
            self.release()
            raise UserError(f"no {count} free TCP ports between {candidates[0]} and {candidates[-1]}")
        self.ports = sorted(self._held)

    def release(self, *ports: int) -> None:
        """All of them when none is named."""
        for port in ports or tuple(self._held):
            self._held.pop(port).close()


def _bind(port: int) -> socket.socket | None:
    """Bound on every address, so that a listener on any of them counts as taken; None when it is."""
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        s.bind(("", port))
    except OSError as e:
        s.close()
        if e.errno in (errno.EADDRINUSE, errno.EACCES):
            return None
        raise
    return s


def hostname_is_loopback() -> bool:
    """Whether SLURM can be told to listen on loopback only: it binds to what the machine's name resolves to.

    Debian's 127.0.1.1 will not do: srun would listen there, and steps would call back to 127.0.0.1 in vain.
    """
    try:
        return socket.gethostbyname(socket.gethostname()) == LOOPBACK
    except OSError:
        return False

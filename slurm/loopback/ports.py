"""Free TCP ports on loopback, reserved until the daemons bind them."""

import errno
import random
import socket
from pathlib import Path

from harness.errors import UserError

LOOPBACK = "127.0.0.1"


def _candidates() -> range:
    """Return ports below the kernel's ephemeral range: no outgoing connection takes one while its daemon is down."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        first = 32768
    return range(12000, first) if first > 14000 else range(20000, 32000)


class Reservation:
    """Free ports, bound but not listening. ``release`` them right before the daemons start that use them."""

    def __init__(self, count: int) -> None:
        self._sockets: dict[int, socket.socket] = {}
        candidates = _candidates()
        for port in random.SystemRandom().sample(candidates, len(candidates)):
            if (bound := _bind(port)) is not None:
                self._sockets[port] = bound
            if len(self._sockets) == count:
                break
        else:
            self.release()
            raise UserError(f"no {count} free TCP ports between {candidates[0]} and {candidates[-1]}")
        self.ports = sorted(self._sockets)

    def release(self, *ports: int) -> None:
        """Release these ports, or all when none is named."""
        for port in ports or tuple(self._sockets):
            self._sockets.pop(port).close()


def _bind(port: int) -> socket.socket | None:
    """Return a socket bound to the port on every address; None where any address is in use."""
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
    """Return whether SLURM can listen on loopback only: it binds to the address of the machine's name.

    Debian's 127.0.1.1 does not work: srun would listen there, and steps would call back to 127.0.0.1.
    """
    try:
        return socket.gethostbyname(socket.gethostname()) == LOOPBACK
    except OSError:
        return False

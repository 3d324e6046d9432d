"""The file by which a job's processes find each other, and the network interface by which they talk. Imports no torch.

The file is private: other users can neither read it nor have written it. So a job needs no port at which its processes
meet, and what it holds is a secret of theirs.
"""

import fcntl
import os
import socket
import stat
import struct
import time
from pathlib import Path

FILE = "KD_RENDEZVOUS"  # the environment variable that names the file
SIOCGIFADDR = 0x8915  # Linux's request for an interface's address


def create_rendezvous(path: Path) -> None:
    """Create an empty file that only this user can read and write, in place of any that lies there."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def await_rendezvous(path: Path, seconds: float) -> None:
    """Wait for the file that the first process creates. One that another user has put there is none.

    Raises:
        TimeoutError: it did not come.
    """
    end = time.monotonic() + seconds
    while not _is_private(path):
        if time.monotonic() > end:
            raise TimeoutError(f"{path}: the first process of the job did not write it in {seconds:.0f} s")
        time.sleep(0.1)


def _is_private(path: Path) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def use_interface(peer: str) -> None:
    """Let gloo and NCCL listen only on the interface through which this machine reaches ``peer``, an IPv4 address.

    An interface that the user has set remains.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.connect((peer, 9))  # sends nothing, but chooses the interface
            address: str = s.getsockname()[0]
    except OSError:  # an IPv6 address: gloo and NCCL choose themselves
        return
    interfaces = (name for _, name in socket.if_nameindex())
    if interface := next((name for name in interfaces if _address(name) == address), None):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")  # "=": this name, not names that begin so


def _address(interface: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            answer = fcntl.ioctl(s, SIOCGIFADDR, struct.pack("256s", interface.encode()))
        except OSError:  # it has no IPv4 address
            return None
    return socket.inet_ntoa(answer[20:24])

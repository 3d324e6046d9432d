"""The sockets and threads of this process, as the kernel lists them."""

import os
import socket
from pathlib import Path

LISTEN = "0A"


def listening_sockets() -> list[tuple[str, int]]:
    """Return the addresses and ports at which this process listens over TCP."""
    links = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    rows = [line.split() for table in ("tcp", "tcp6") for line in Path("/proc/self/net", table).open()]
    return [_address(row[1]) for row in rows if row[3] == LISTEN and f"socket:[{row[9]}]" in links]


def _address(text: str) -> tuple[str, int]:
    """Return "0100007F:9B0F", an address in the machine's order of bytes, as ("127.0.0.1", 39695)."""
    address, port = text.split(":")
    words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, b"".join(words)), int(port, 16)


def thread_names() -> str:
    """Return the names of this process's threads, C++ ones too, a line each."""
    return "".join(file.read_text() for file in Path("/proc/self/task").glob("*/comm"))

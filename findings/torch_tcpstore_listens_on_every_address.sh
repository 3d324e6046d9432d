#!/usr/bin/env bash
# torch 2.14.1: `TCPStore("127.0.0.1", 0, is_master=True)` listens on every address of the machine, not on the one that it is given: the host's
# name is only where clients connect to. So the rendezvous of a job of several processes on one machine (`init_process_group` with
# MASTER_ADDR=127.0.0.1 too) is open to the network, and the store asks nobody for a password. Python's own `socket` binds what it is told.
# A socket that is handed over, `master_listen_fd`, stays on its address.
# Seen on Python 3.11, Linux: [::] for both ways of starting, 127.0.0.1 for the socket that was handed over.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
seen="$(cd "$folder" && "$folder/venv/bin/python" - 2>&1 <<'PYTHON'
import os
import socket
from datetime import timedelta

import torch.distributed as dist


def addresses(port):
    """Return the addresses on which this machine listens at a port, as Linux lists them."""
    found = set()
    for table, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        for line in open(table).read().splitlines()[1:]:
            local, state = (line.split()[i] for i in (1, 3))
            address, number = local.split(":")
            if state == "0A" and int(number, 16) == port:
                words = bytes.fromhex(address)
                packed = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                found.add(socket.inet_ntop(family, packed))
    return ",".join(sorted(found))


named = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=20))
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0", "WORLD_SIZE": "1"}
dist.init_process_group("gloo")
group = addresses(port)
dist.destroy_process_group()
own = socket.create_server(("127.0.0.1", 0))
port = own.getsockname()[1]
handed = dist.TCPStore("127.0.0.1", port, is_master=True, master_listen_fd=own.detach(), timeout=timedelta(seconds=20))
print(addresses(named.port), group, addresses(handed.port))
PYTHON
)"
echo "by name, by init_process_group, by a socket that was handed over: $seen"
test "$seen" = ":: :: 127.0.0.1"

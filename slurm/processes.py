"""Processes of the local queues on this machine, found by their command lines.

Only the kernel is asked: a number in a file of the store may be another user's doing, of another machine, or that of a
process which has taken the number since. Nobody else can start a process of this user, or change its command line.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

DISPATCHER, FORK_SERVER = "slurm.local", "slurm.fork_server"
PATIENCE_SECONDS = 10.0  # for the kernel to end what it was told to kill


def end_queue(queue_file: Path) -> bool:
    """End this user's dispatcher and jobs of a queue on this machine; return whether there was any."""
    ended, until = False, time.monotonic() + PATIENCE_SECONDS
    # More than once: a dispatcher may start a job between the look and its end.
    while (pids := list(_processes(queue_file))) and time.monotonic() < until:
        for pid in sorted(pids, key=lambda pid: _module(pid, queue_file) != DISPATCHER):
            _kill(pid, queue_file)
        ended = True
        time.sleep(0.01)
    return ended


def _processes(queue_file: Path) -> Iterator[int]:
    with os.scandir("/proc") as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdecimal()]
    return (pid for pid in pids if _module(pid, queue_file))


def _module(pid: int, queue_file: Path) -> str | None:
    """Return which module a process of this user runs for a queue, DISPATCHER or FORK_SERVER; None for any other.

    Forked jobs have the command line of their fork server.
    """
    with suppress(OSError):
        *words, last = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        if last == os.fsencode(queue_file) and os.stat(f"/proc/{pid}").st_uid == os.geteuid():
            tails = {DISPATCHER: words[-2:], FORK_SERVER: words[-3:-1]}
            return next((name for name, tail in tails.items() if tail == [b"-m", name.encode()]), None)
    return None


def _kill(pid: int, queue_file: Path) -> None:
    with suppress(ProcessLookupError):
        process = os.pidfd_open(pid)  # which stays this process, whatever becomes of its number
        try:
            if (module := _module(pid, queue_file)) == DISPATCHER and os.getpgid(pid) == pid:
                # The dispatcher leads the group of its jobs and of what they have started. Stopped, it cannot end
                # before the group is signalled, and so the number is its own.
                signal.pidfd_send_signal(process, signal.SIGSTOP)
                os.killpg(pid, signal.SIGKILL)
            elif module:
                signal.pidfd_send_signal(process, signal.SIGKILL)
        finally:
            os.close(process)

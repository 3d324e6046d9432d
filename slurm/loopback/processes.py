"""Processes of a cluster: daemons are started, and found again from pid files, or from /proc when those fail."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

MARK = "KD_LOOPBACK_DAEMON"  # in the environment of every daemon, with the cluster's folder as its value
_children: dict[int, "subprocess.Popen[bytes]"] = {}  # started by this process, to be reaped when they end


def spawn(command: list[str], pid_file: Path, log: Path, root: Path, env: Mapping[str, str]) -> int:
    """Start a daemon in a session of its own, so that ctrl-C on this process does not reach it."""
    with log.open("ab") as out:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=root,
            env=marked(env, root),
            start_new_session=True,
            umask=0o077,
        )
    _children[child.pid] = child
    pid_file.write_text(f"{child.pid} {_started(child.pid)}")
    return child.pid


def marked(env: Mapping[str, str], root: Path) -> dict[str, str]:
    """Return an environment by which ``of_cluster`` recognizes a process."""
    return {**env, MARK: str(root)}


def alive(pid_file: Path) -> int | None:
    """Return the process that a pid file names; None when it ended, even if its number belongs to another now."""
    try:
        pid, started = pid_file.read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if _started(int(pid)) == started != "gone" else None


def end(pids: Iterable[int], grace: float = 0.0) -> None:
    """Send SIGTERM, then SIGKILL to those left after ``grace`` seconds, and wait until they are gone.

    Those left are stopped before the first of them is killed: as at a power cut, none lives to report another's death.
    """
    pids = list(pids)
    if grace:
        _signal(pids, signal.SIGTERM)
        wait_until(lambda: not any(map(running, pids)), grace)
    left = [p for p in pids if running(p)]
    _signal(left, signal.SIGSTOP)
    _signal(left, signal.SIGKILL)
    wait_until(lambda: not any(map(running, pids)), 10)


def running(pid: int) -> bool:
    if pid in _children and _children[pid].poll() is not None:
        del _children[pid]
    return _started(pid) != "gone"


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.05) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def of_cluster(root: Path, slurm_conf: Path, node: str | None = None) -> set[int]:
    """Return the daemons, job steps and jobs of the cluster in ``root``, or of one of its nodes.

    A shell that has sourced env.sh, and its processes, do not belong to the cluster, nor do this process and its
    ancestors.
    """
    pids = set()
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            pid = int(entry)
            children.setdefault(_parent(pid), []).append(pid)
            if _belongs(pid, root, slurm_conf, node):
                pids.add(pid)
    queue = list(pids)
    while queue:  # a job's process may have emptied its environment
        for child in children.get(queue.pop(), []):
            if child not in pids:
                pids.add(child)
                queue.append(child)
    return pids - _ancestors()


def _belongs(pid: int, root: Path, slurm_conf: Path, node: str | None) -> bool:
    environ = dict(item.partition("=")[::2] for item in _proc(pid, "environ").split("\0") if "=" in item)
    if environ.get("SLURM_CONF") == str(slurm_conf) and "SLURM_JOB_ID" in environ:
        return node is None or environ.get("SLURMD_NODENAME") == node
    if node is None and environ.get(MARK) == str(root):
        return True
    # slurmd and its steps write their title over their environment; their log file says which cluster's they are.
    if not _proc(pid, "comm").startswith("slurm"):
        return False
    log = str(root / "log" / f"{node}.log")
    return any(f == log if node else f.startswith(f"{root}/") for f in _open_files(pid))


def _ancestors() -> set[int]:
    chain, pid = set(), os.getpid()
    while pid > 0 and pid not in chain:
        chain.add(pid)
        pid = _parent(pid)
    return chain


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; none when the process is gone or a zombie."""
    fields = _proc(pid, "stat").rpartition(")")[2].split()
    return fields if fields and fields[0] not in "ZX" else []


def _started(pid: int) -> str:
    return fields[19] if (fields := _stat(pid)) else "gone"


def _parent(pid: int) -> int:
    return int(fields[1]) if (fields := _stat(pid)) else 0


def _proc(pid: int, name: str) -> str:
    """Return a file of /proc/PID; "" when the process is gone, or another user's."""
    try:
        return os.fsdecode(Path(f"/proc/{pid}/{name}").read_bytes())
    except OSError:
        return ""


def _open_files(pid: int) -> list[str]:
    paths = []
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                paths.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return paths

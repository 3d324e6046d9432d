"""Kills for want of memory, as the kernel counts them in a job's control group."""

from contextlib import suppress
from pathlib import Path

CGROUP, MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def oom_kills(cgroup: Path = CGROUP, mount: Path = MOUNT) -> int:
    """Return how many processes of this one's control group were killed for memory so far; 0 where none counts."""
    with suppress(OSError):
        for line in cgroup.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                return _count(mount / "memory" / path.lstrip("/") / "memory.oom_control")
        for line in cgroup.read_text().splitlines():
            if line.startswith("0::"):  # version 2
                return _count(mount / line[3:].lstrip("/") / "memory.events")
    return 0


def _count(file: Path) -> int:
    counts = dict(line.split()[:2] for line in file.read_text().splitlines() if " " in line)
    return int(counts.get("oom_kill", 0))

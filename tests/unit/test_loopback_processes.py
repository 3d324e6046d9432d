"""Ending the processes of a loopback cluster."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from slurm.loopback import processes


def test_none_of_the_killed_sees_another_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM's step would report its script's death to the controller: a failed job, not a failed node."""
    parents = [
        subprocess.Popen(["bash", "-c", f"sleep 60; touch {tmp_path}/{i}"], start_new_session=True) for i in range(8)
    ]
    children = {parent.pid: _children(parent) for parent in parents}
    kill = os.kill
    monkeypatch.setattr(os, "kill", lambda pid, number: (kill(pid, number), time.sleep(0.02)))  # a loaded machine
    processes.end([pid for parent, sleeps in children.items() for pid in (*sleeps, parent)])
    assert {parent.wait() for parent in parents} == {-9}
    assert list(tmp_path.iterdir()) == []


def _children(parent: "subprocess.Popen[bytes]") -> list[int]:
    listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    assert processes.wait_until(lambda: listed.read_text() != "", 60)
    return [int(pid) for pid in listed.read_text().split()]

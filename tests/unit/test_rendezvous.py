"""The processes of a job on a cluster find each other."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slurm import entry

GROUP = ("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE")


@pytest.fixture(autouse=True)
def _job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.7")
    monkeypatch.setattr(entry, "RENDEZVOUS_SECONDS", 0.0)
    for name in GROUP:
        monkeypatch.setenv(name, "")  # which restores it afterwards


def process(folder: Path, rank: int) -> Any:
    """Return what submitit says to one of four processes on two nodes."""
    paths = SimpleNamespace(folder=folder)
    return SimpleNamespace(global_rank=rank, local_rank=rank % 2, num_tasks=4, job_id="12_3", paths=paths)


def test_the_others_take_the_first_ones_port(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match=r"rendezvous-12_3-0\.json: the first process of the job did not write it"):
        entry._join(process(tmp_path, 1))
    assert not list(tmp_path.iterdir())
    entry._join(process(tmp_path, 0))
    first = {name: os.environ[name] for name in GROUP}
    assert first | {"MASTER_PORT": ""} == dict(zip(GROUP, ("10.0.0.7", "", "0", "0", "4"), strict=True))
    entry._join(process(tmp_path, 3))
    assert {name: os.environ[name] for name in GROUP} == {**first, "RANK": "3", "LOCAL_RANK": "1"}


def test_a_requeued_job_has_a_port_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry._join(process(tmp_path, 0))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(TimeoutError):
        entry._join(process(tmp_path, 1))

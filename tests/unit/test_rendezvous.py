"""The processes of a job on a cluster find each other."""

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.training.distributed import rendezvous
from slurm import entry

GROUP = (rendezvous.FILE, "RANK", "LOCAL_RANK", "WORLD_SIZE")
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@pytest.fixture(autouse=True)
def _job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")
    monkeypatch.setattr(entry, "RENDEZVOUS_SECONDS", 0.0)
    for name in (*GROUP, *INTERFACES):
        monkeypatch.setenv(name, "")  # which restores it afterwards
        monkeypatch.delenv(name)


def process(folder: Path, rank: int, nodes: int = 2) -> Any:
    """Return what submitit says to one of four processes."""
    paths = SimpleNamespace(folder=folder)
    return SimpleNamespace(
        global_rank=rank, local_rank=rank % 2, num_tasks=4, num_nodes=nodes, job_id="12_3", paths=paths
    )


def test_the_others_take_the_first_ones_file(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="rendezvous-12_3-0: the first process of the job did not write it"):
        entry._join(process(tmp_path, 1))
    assert not list(tmp_path.iterdir())
    entry._join(process(tmp_path, 0))
    first = {name: os.environ[name] for name in GROUP}
    assert first == dict(zip(GROUP, (str(tmp_path / "rendezvous-12_3-0"), "0", "0", "4"), strict=True))
    assert (tmp_path / "rendezvous-12_3-0").stat().st_mode & 0o777 == 0o600
    entry._join(process(tmp_path, 3))
    assert {name: os.environ[name] for name in GROUP} == {**first, "RANK": "3", "LOCAL_RANK": "1"}


@pytest.mark.parametrize(
    ("visible", "local_rank"),
    [("0,1", "1"), ("1", "0"), ("MIG-5d2c7e9a-1f0b-5c3d-8e7f-6a5b4c3d2e1f", "0"), ("", "1")],
    ids=["gpus-per-node", "gpus-per-task", "a slice per task", "no GPU"],
)
def test_a_process_counts_the_gpus_that_it_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, local_rank: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    entry._join(process(tmp_path, 0))
    entry._join(process(tmp_path, 3))  # the second of its node
    assert os.environ["LOCAL_RANK"] == local_rank


def test_a_requeued_job_has_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry._join(process(tmp_path, 0))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(TimeoutError):
        entry._join(process(tmp_path, 1))


@pytest.mark.parametrize("plant", ["open", "link", "another user's"])
def test_a_file_that_others_could_write_is_none(tmp_path: Path, plant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file, user = tmp_path / "rendezvous-12_3-0", os.geteuid()
    if plant == "link":
        (tmp_path / "elsewhere").touch(0o600)
        file.symlink_to("elsewhere")
    else:
        file.touch(0o600)
        file.chmod(0o620 if plant == "open" else 0o600)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: user + (plant == "another user's"))
        with pytest.raises(TimeoutError):
            entry._join(process(tmp_path, 1))
    entry._join(process(tmp_path, 0))
    entry._join(process(tmp_path, 1))
    assert not file.is_symlink() and file.stat().st_mode & 0o777 == 0o600


def test_a_job_on_one_node_listens_on_loopback_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_LAUNCH_NODE_IPADDR", "192.0.2.7")
    entry._join(process(tmp_path, 0, nodes=1))
    assert [os.environ[name] for name in INTERFACES] == ["lo", "=lo"]


def test_nodes_listen_where_they_reach_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.7", 9))
        except OSError:
            pytest.skip("this machine has no network")
        address = s.getsockname()[0]
    monkeypatch.setenv("SLURM_LAUNCH_NODE_IPADDR", "192.0.2.7")
    entry._join(process(tmp_path, 0))
    interface = os.environ["GLOO_SOCKET_IFNAME"]
    assert interface != "lo" and rendezvous._address(interface) == address


def test_an_interface_that_the_user_has_set_remains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    entry._join(process(tmp_path, 0))
    assert os.environ["GLOO_SOCKET_IFNAME"] == "ib0"

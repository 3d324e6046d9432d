"""Jobs that share a node: who shares, their GPUs, what SLURM is asked for, and their memory."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.planning.cost.devices import devices
from harness.store.store import Store
from slurm import entry, node_jobs
from slurm.job_groups import job_groups
from slurm.node_jobs import KILLED_FOR_MEMORY, STARTING, share_of_gpus
from slurm.node_order import function_of, jobs_of
from slurm.oom_kills import oom_kills
from slurm.profiles import Resources
from slurm.queue import Queue, QueuedJob, QueuedRun


@pytest.mark.parametrize(
    ("devices", "jobs", "expected"),
    [
        ("0 1 2 3", 4, ["0", "1", "2", "3"]),
        ("0 1 2 3", 2, ["0,1", "2,3"]),
        ("0 1 2 3", 3, ["0", "1", "2"]),
        ("GPU-a GPU-b", 4, ["GPU-a", "GPU-b", "GPU-a", "GPU-b"]),
        ("5", 2, ["5", "5"]),
        ("", 2, [None, None]),
    ],
)
def test_each_job_has_its_share_of_the_gpus(devices: str, jobs: int, expected: list[str | None]) -> None:
    assert [share_of_gpus(devices.split(), number, jobs) for number in range(jobs)] == expected


def test_jobs_of_one_pair_share_nodes() -> None:
    jobs = [
        QueuedJob((QueuedRun(f"{student}{seed}", "kd", True, 1),), None, student, "t", 100, 10)
        for seed in range(3)
        for student in ("a", "b")
    ]
    asked = Resources(jobs_per_node=4, cpus_per_task=3, gpus_per_node=4)
    ((on_nodes, _),) = job_groups(jobs, set(), lambda _: asked)
    assert [job.run_ids for job in on_nodes] == [("a0", "a1", "a2", "b0"), ("b1", "b2")]
    order = on_nodes[1].order(Queue("/store", tuple(jobs), 6, 1, None, {}, "big"), None)
    assert function_of(order) == node_jobs.run
    given = [(job["run_ids"], job["threads"], job["asked"]) for job in jobs_of(order)]
    assert given == [(("b1",), 3, {"minutes": 60}), (("b2",), 3, {"minutes": 60})]
    ((alone, _),) = job_groups(jobs, set(), lambda _: Resources())
    assert [job.run_ids for job in alone] == [job.run_ids for job in jobs], "in the queue's order"
    assert function_of(alone[0].order(Queue("/store", tuple(jobs), 6, 1, None, {}, "big"), None)) == entry.run


def test_the_plan_counts_a_jobs_share_of_the_node(tmp_path: Path) -> None:
    (profile := tmp_path / "p.yaml").write_text(
        "resources: {jobs_per_node: 4, gpus_per_node: 2}\nby_size: [{student: b, resources: {gpus_per_node: 0}}]\n"
    )
    device_of: Any = devices(str(profile), 1)
    on_gpu, on_cpu = (device_of(SimpleNamespace(student=name, teacher_model=None)) for name in ("a", "b"))
    assert [(device.units, device.jobs_per_node) for device in (on_gpu, on_cpu)] == [(0.5, 4), (1, 4)]


def test_a_start_that_ended_for_memory_counts_for_all_jobs_that_were_left(tmp_path: Path) -> None:
    """Words of an earlier start, which lie before the last one's first line, do not count again."""
    store, own_log = Store(tmp_path), tmp_path / "7_0_log.out"
    members = [node_jobs._Member({"run_ids": [k]}, tmp_path / f"7_{k}_log.out", None) for k in ("aaaa", "bbbb")]
    store.write_failure("bbbb", "code", "a bug", "", "")
    killed = "slurmstepd: error: StepId=7.0 exceeded memory limit\n"
    for start, text in enumerate(
        (f"2 {STARTING}\n{killed}", f"2 {STARTING}\nslurmstepd: error: PREEMPTED\n", killed), 1
    ):
        with own_log.open("a") as log:
            log.write(text)
        node_jobs._note_memory(own_log, store, members)
        assert members[0].log.read_text().count(KILLED_FOR_MEMORY) == (1 if start < 3 else 2)
    assert not members[1].log.exists()
    entry.fail_after_max_attempts(store, ["aaaa"], 20, str(members[0].log), 2)
    assert store.failed_ids() == {"bbbb"}
    entry.fail_after_max_attempts(store, ["aaaa"], 20, str(members[0].log), 3)
    failure = store.failure("aaaa")
    assert failure and "no result after 3 attempts, out of memory: raise `mem_gb`" in failure.cause


@pytest.mark.parametrize(
    ("cgroup", "file"),
    [
        ("0::/slurm/job_7/step_0\n", "slurm/job_7/step_0/memory.events"),
        ("9:cpu,memory:/slurm/job_7\n0::/other\n", "memory/slurm/job_7/memory.oom_control"),
    ],
)
def test_the_kernels_count_of_kills_for_memory(tmp_path: Path, cgroup: str, file: str) -> None:
    (own := tmp_path / "cgroup").write_text(cgroup)
    assert oom_kills(own, tmp_path) == 0, "nobody counts"
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text("oom 5\noom_kill 3\noom_group_kill 0\n")
    assert oom_kills(own, tmp_path) == 3
    assert oom_kills(tmp_path / "missing", tmp_path) == 0

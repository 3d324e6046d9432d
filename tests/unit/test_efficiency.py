"""The use of jobs: lines of sacct, records where there are none, and the advice that follows."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import UserError
from harness.planning.plan import Planned
from harness.reporting.efficiency import GB, Asked, JobClass, JobUse
from slurm import commands, profiles
from slurm.accounting import Allocation, allocations, parse
from slurm.array_jobs import ArrayJob, ArrayJobs
from slurm.node_order import node_order
from tests.support import planned_costs
from tests.support.cli import run_command
from tests.support.planned_costs import plan, record, runs

MB = 1024**2
# As sacct --noconvert prints them, after JobID: State, ElapsedRaw, TimelimitRaw, NNodes, NTasks, ReqCPUS, ReqMem,
# ReqTRES, AllocTRES, MaxRSS, TotalCPU, TRESUsageInAve, JobName.
LINES = {
    "20.11": [  # ReqMem of each node, and a job that wrote no ReqTRES
        "12_3|COMPLETED|1860|240|1||8|32768Mn||billing=8,cpu=8,gres/gpu=1,mem=32G,node=1||1-01:00:00||kd-a",
        "12_3.batch|COMPLETED|1860||1|1|8|32768Mn||cpu=8,gres/gpu=1,mem=32G,node=1|12260K|00:00.017|cpu=00:00:00|batch",
        "12_3.extern|COMPLETED|1860||1|1|8|32768Mn||billing=8,cpu=8,node=1|900G|00:00:00|cpu=00:00:00|extern",
        "12_3.0|COMPLETED|1860||1|1|8|32768Mn||cpu=8,mem=32G|4194304K|1-01:00:00|cpu=1-01:00:00,mem=4194304K|python",
    ],
    "21.08": [  # of all nodes, whose processes are several
        "7|TIMEOUT|600|10|2||16|4000M|billing=16,cpu=16,mem=4000M,node=2|billing=16,cpu=16,mem=4000M,node=2||02:30:00||b",
        "7.batch|CANCELLED|601||1|1|8|||cpu=8,mem=2000M,node=1|10485760|00:00.013||batch",
        "7.0|FAILED|600||2|4|16|||cpu=16,mem=4000M,node=2|524288000|02:29:59|cpu=00:37:30,mem=500M|python",
    ],
    "22.05": [  # requeued, then done; its last start has no steps that were measured
        "1_0|REQUEUED|3|10|1||2|1536M|billing=2,cpu=2,mem=1536M,node=1|billing=2,cpu=2,mem=1536M,node=1||00:00.019||c",
        "1_0.batch|CANCELLED|3||1|1|2|||cpu=2,mem=1536M,node=1|12554240|00:00.017||batch",
        "3_[0-2]|PENDING|0|60|1||1|2000M|billing=1,cpu=1,mem=2000M,node=1|||00:00:00||c",
        "1_0|CANCELLED by 1000|8|10|1||2|1536M|billing=2,cpu=2,mem=1536M,node=1|||00:00:00||c",
        "1_0.batch|CANCELLED|8||1|1|2|||cpu=2,mem=1536M,node=1||00:00:00||batch",
    ],
    "24.11": [  # GPUs are measured; no limit, and all memory of the node
        "9|OUT_OF_MEMORY|90|UNLIMITED|1||4|0|cpu=4,gres/gpu=2,mem=0,node=1|cpu=4,gres/gpu:a100=2,gres/gpu=2,mem=64G,node=1"
        "||00:03.500||a|name",
        "9.batch|OUT_OF_MEMORY|90||1|1|4|||cpu=4||00:00:00|cpu=00:00:00,gres/gpuutil=0|batch",
        "9.0|OUT_OF_MEMORY|90||1|2|4|||cpu=4|1G|00:03.500|cpu=00:00:03,gres/gpumem=900M,gres/gpuutil=73,mem=1G|python",
        "10|RUNNING|90|60|1||4|1G|cpu=4,mem=1G,node=1|cpu=4,mem=1G,node=1||00:00:00||d",
        "11|COMPLETED|||||||||||d",  # its accounting was lost
        "sacct: a warning",
    ],
}
SAID = {
    "20.11": [
        Allocation("12_3", "kd-a", "COMPLETED", 1860, 14400, 1, 1, 8, 32 * GB, 1, 9e4, 4 * GB + 12260 * 1024, None)
    ],
    "21.08": [Allocation("7", "b", "TIMEOUT", 600, 600, 2, 4, 16, 2000 * MB, 0, 9000.0, 1010 * MB, None)],
    "22.05": [
        Allocation("1_0", "c", "REQUEUED", 3, 600, 1, 1, 2, 1536 * MB, 0, 0.019, 12554240, None),
        Allocation("1_0", "c", "CANCELLED", 8, 600, 1, 1, 2, 1536 * MB, 0, None, None, None),
    ],
    "24.11": [Allocation("9", "a|name", "OUT_OF_MEMORY", 90, None, 1, 2, 4, 64 * GB, 2, 3.5, 2 * GB, 73.0)],
}  # fmt: skip


@pytest.mark.parametrize("version", LINES)
def test_lines_of_every_version_are_read(version: str) -> None:
    assert parse(LINES[version]) == SAID[version]


@pytest.mark.parametrize(("memory", "megabytes"), [("1000Mc", 8000), ("4Gn", 8192), ("3.50G", 3584), ("?", None)])
def test_memory_is_asked_for_per_core_node_or_job(memory: str, megabytes: int | None) -> None:
    (start,) = parse([f"1|FAILED|5|1|2||8|{memory}||||00:01.000||a"])
    assert start.memory == (megabytes and megabytes * MB // 2)


def job(minutes: float, **more: Any) -> JobUse:
    facts: dict[str, Any] = dict(
        student="s", teacher="t", packs=1, asked=Asked(240, 32 * GB, 1, 1, 8, 1), finished=True, seconds=60 * minutes,
        memory=4 * GB, cores=1.5, gpu_percent=None, starts=1, ends=Counter(), source="accounting", waiting=None,
    )  # fmt: skip
    return JobUse(**{**facts, **more})


def test_advice_covers_the_longest_job_and_most_others_with_a_margin() -> None:
    def advice(*jobs: JobUse) -> tuple[int | None, ...] | None:
        return JobClass(jobs).advice

    assert advice(*[job(20)] * 9, job(21)) == (25, 5, 2), "25 % more than 9 of 10"
    assert advice(*[job(20)] * 9, job(40)) == (45, 5, 2), "the longest, and the signal before the limit"
    assert advice(job(20), job(20)) is None, "too few"
    assert advice(job(20), job(20), job(999, finished=False, cores=7.9)) is None
    assert advice(*[job(20)] * 3, job(1, finished=False, cores=7.9)) == (25, 5, 8), "no more cores than it had"
    ran_out = job(1, finished=False, memory=GB, ends=Counter(OUT_OF_MEMORY=1))
    assert advice(*[job(20)] * 3, ran_out) == (25, 40, 2), "it needs more than all that it asked for"
    assert advice(*[job(20, memory=None, cores=None)] * 3) == (25, None, None), "nothing is invented"


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """A sweep of five seeds: the teacher trained on this machine, the others in jobs of two arrays."""
    monkeypatch.chdir(tmp_path)
    planned = plan(tmp_path, seeds=5)
    record(planned, planned_costs.teacher(planned), own=30.0, job=9, peak_memory_bytes=GB)
    for seed in range(4):
        record(planned, *runs(planned, seed), own=60.0, job=seed, peak_memory_bytes=2 * GB)
    packs = [list(runs(planned, seed)) for seed in range(5)]
    planned.store.run(packs[3][0]).mkdir(parents=True, exist_ok=True)
    asked = {"memory_mb": 16 * 1024, "too_little_mb": 8 * 1024, "minutes": 60, "too_few_minutes": 30}
    planned.store.add_attempt(packs[3][0], log="log", pid=1, **asked)
    ArrayJobs(planned.store).write(ArrayJob("kd-1", "", packs, [], "12"))
    ArrayJobs(planned.store).write(ArrayJob("kd-2", "", [packs[0][1:]], [], "13"))
    return planned


def start(job_id: str, name: str, state: str, seconds: int) -> list[str]:
    asked = "cpu=4,mem=8G,node=1"
    return [
        f"{job_id}|{state}|{seconds}|60|1||4|8G|{asked}|{asked}||{seconds // 60}:00.000||{name}",
        f"{job_id}.0|{state}|{seconds}||1|1|4|||{asked}|1G|{seconds // 60}:00.000||python",
    ]


def test_the_command_prints_a_sweeps_jobs_and_a_profile(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that was submitted again for what it had not finished is one job; one of another name is none."""
    lines = [
        *start("12_0", "kd-1", "REQUEUED", 600), *start("12_0", "kd-1", "NODE_FAIL", 600),
        *(line for seed in (1, 2, 3) for line in start(f"12_{seed}", "kd-1", "COMPLETED", 960)),
        *start("12_4", "kd-1", "TIMEOUT", 3600), *start("12_1", "another's", "COMPLETED", 9999),
        *start("13", "kd-2", "COMPLETED", 600),
    ]  # fmt: skip
    asked: list[str] = []
    monkeypatch.setattr(commands, "sacct_lines", lambda *options: asked.extend(options) or lines)
    result = run_command("report", "small.yaml", "--efficiency")
    assert (result.code, "--jobs=12,13" in asked) == (0, True), result.err
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.out.splitlines()[2:4]] == [
        ["digits_net_w8", "CPU", "1", "1", "- / 0.6 / 0.6", "- / 1", "2 / -", ""],
        ["digits_net_w8 > digits_net_w4", "CPU", "5", "7", "60 / 16 / 30", "8 / 2", "4 / 1", ""],
    ]
    ends = "starts that ended before their job was done: 1 requeued, 1 node fail, 1 timeout."
    retried = "retried with 16 GB after running out of memory with 8; retried with 60 minutes after 30 were too few."
    assert f"digits_net_w8 > digits_net_w4: 1 job {retried}" in result.out
    assert ends in result.out and "fewer than 3 finished jobs: digits_net_w8 (1)." in result.out
    Path("my.yaml").write_text(result.out.partition("```yaml\n")[2].removesuffix("```\n"))
    profile = profiles.load_profile("my.yaml")
    advised = {"time_minutes": 40, "mem_gb": 3, "cpus_per_task": 2}
    assert profile.resources_for("digits_net_w4", "digits_net_w8") == profiles.Resources.model_validate(advised)
    assert profile.resources_for("digits_net_w4", None) == profiles.Resources()
    document = json.loads(run_command("report", "small.yaml", "--efficiency", "--json").out)
    assert document["by_size"] == yaml.safe_load(Path("my.yaml").read_text())["by_size"]
    assert [each["finished"] for each in document["classes"]] == [1, 4] and document["not_answered"] == ""
    fitted = run_command("report", "small.yaml", "--efficiency", "--format", "terminal").out.splitlines()
    assert max(map(len, fitted)) <= 80 and not any(line.startswith("No room") for line in fitted)


def test_cores_are_those_of_each_job_that_shares_a_node(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four jobs have had what four of a node's eight places have, and one was alone on another node."""
    packs = [list(runs(planned, seed)) for seed in range(5)]
    notes = ArrayJobs(planned.store)
    for note in notes.read():
        notes.remove(note)
    specs = [node_order([{"run_ids": pack} for pack in of_node], 8) for of_node in (packs[:4], packs[4:])]
    notes.write(ArrayJob("kd-1", "", [sum(packs[:4], []), packs[4]], specs, "12"))
    asked = "cpu=16,mem=32G,node=1"
    lines = [
        f"12_{task}{line}"
        for task, cpu in ((0, "01:00:00"), (1, "15:00.000"))
        for line in (
            f"|COMPLETED|1200|60|1||16|32G|{asked}|{asked}||{cpu}||kd-1",
            f".0|COMPLETED|1200||1|1|16|||{asked}|1G|{cpu}||python",
        )
    ]
    monkeypatch.setattr(commands, "sacct_lines", lambda *options: lines)
    document = json.loads(run_command("report", "small.yaml", "--efficiency", "--json").out)
    (job_class,) = (each for each in document["classes"] if each["teacher"])
    assert (job_class["jobs"], job_class["finished"], job_class["packs"]) == (2, 1, 1)
    assert (job_class["asked"]["cpus_per_task"], job_class["asked"]["mem_gb"]) == (2, 32)
    assert (job_class["used"]["mean_cores"], job_class["used"]["most_gb"]) == (0.75, 8), "four of 2 GB each"
    monkeypatch.setattr(commands, "sacct_lines", lambda *options: [])
    document = json.loads(run_command("report", "small.yaml", "--efficiency", "--json").out)
    (job_class,) = (each for each in document["classes"] if each["teacher"])
    assert (job_class["source"], job_class["jobs"], job_class["used"]["most_gb"]) == ("records", 4, 8)


def test_jobs_that_wait_for_images_are_named(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack of two runs of 60 s and 6 s for both waited for 30 s. The other packs' records are from before."""
    monkeypatch.setattr(commands, "sacct_lines", lambda *options: [])
    assert "waited for images" not in run_command("report", "small.yaml", "--efficiency").out
    record(planned, *runs(planned, 4), own=60.0, waiting=30.0, job=4)
    said = "digits_net_w8 > digits_net_w4: waited for images 19% of the time: more cores would make it faster."
    assert said in run_command("report", "small.yaml", "--efficiency").out
    document = json.loads(run_command("report", "small.yaml", "--efficiency", "--json").out)
    assert [each["used"]["waiting_percent"] for each in document["classes"]] == [None, pytest.approx(100 * 30 / 156)]


def test_without_accounting_the_records_tell(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*options: str) -> list[str]:
        raise UserError("sacct: no such command; is this a SLURM login node?")

    monkeypatch.setattr(commands, "sacct_lines", refuse)
    result = run_command("report", "small.yaml", "--efficiency")
    assert result.code == 0, result.err
    assert "did not answer (sacct: no such command; is this a SLURM login node?): the numbers are" in result.out
    assert "resources: {time_minutes: 10, mem_gb: 3}" in result.out
    (line,) = (line for line in result.out.splitlines() if ">" in line and line.startswith("| digits"))
    assert all(f" {text} |" in line for text in ("- / 2.2 / 2.2", "- / 2", "2 / -"))
    assert allocations([]) == [], "nothing is asked of no job"
    assert "name its file" in run_command("report", "--efficiency").error
    assert "print nothing else" in run_command("report", "small.yaml", "--efficiency", "--gap").error
    assert "prints Markdown" in run_command("report", "small.yaml", "--efficiency", "--format", "csv").error
    assert "no job of small has ended yet" in run_command("report", "small.yaml", "--efficiency", "--results", "b").err

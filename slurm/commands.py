"""The SLURM commands that the harness calls, each for all jobs at once."""

import os
import pwd
import re
import subprocess
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from harness.errors import UserError
from harness.store.ownership import user_name
from slurm.environment import query_environment

TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class JobState:
    """A job or array task."""

    job_id: str  # 12 or 12_3
    name: str
    state: str  # PENDING, RUNNING, COMPLETED, FAILED, TIMEOUT, PREEMPTED, NODE_FAIL, OUT_OF_MEMORY, CANCELLED, ...
    reason: str
    user: str = ""


def squeue(users: Iterable[str]) -> list[JobState]:
    """Return the users' jobs that have not ended, one entry per array task.

    Raises:
        UserError: SLURM does not answer.
    """
    # squeue has no word for an account without a name, as in a container: then it lists everybody's jobs.
    of_users = ["--user=" + ",".join(sorted(filter(_is_known, users)))] if _is_known(user()) else []
    lines = _output("squeue", *of_users, "--array", "--noheader", "--format=%i|%j|%T|%U|%r").splitlines()
    rows = (line.split("|", 4) for line in lines)
    return [JobState(job_id, name, state, reason, user_name(int(uid))) for job_id, name, state, uid, reason in rows]


def sacct(job_ids: list[str]) -> list[JobState]:
    """Return how jobs ended, from the accounting; empty where a cluster has none or it does not answer."""
    if not job_ids:
        return []
    try:
        text = _output(
            "sacct", "-X", "--noheader", "--parsable2", "--duplicates",
            "--format=JobID,JobName,State,Reason", "--jobs=" + ",".join(job_ids),
        )  # fmt: skip
    except UserError:
        return []
    rows = [line.split("|", 3) for line in text.splitlines()]
    return [JobState(job_id, name, (state.split() or ["UNKNOWN"])[0], reason) for job_id, name, state, reason in rows]


def sacct_lines(*options: str) -> list[str]:
    """Return the lines of a table of the accounting, with ``|`` between columns and memory in the units it is kept in.

    Raises:
        UserError: the cluster has no accounting, or it does not answer.
    """
    return _output("sacct", "--noheader", "--parsable2", "--noconvert", *options).splitlines()


def most_array_tasks() -> int:
    """Return how many tasks one array may have on this cluster."""
    lines = (line.partition("=") for line in _output("scontrol", "show", "config").splitlines())
    config = {key.strip(): value.strip() for key, _, value in lines}
    scheduler = dict(item.partition("=")[::2] for item in config.get("SchedulerParameters", "").split(","))
    limits = [config.get("MaxArraySize", "1001"), config.get("MaxJobCount", "10000"), scheduler.get("max_array_tasks")]
    return max(1, min(int(limit) for limit in limits if limit))  # MaxArraySize 0: arrays are switched off


def usable_nodes(partitions: str = "") -> set[str]:
    """Return the nodes of this cluster, or of partitions (``a,b``), that run jobs or could.

    Raises:
        UserError: SLURM does not answer.
    """
    of_partitions = [f"--partition={partitions}"] if partitions else []
    states = "idle,mixed,allocated,completing"
    return set(_output("sinfo", "--noheader", "--Node", f"--states={states}", "--format=%N", *of_partitions).split())


def cancel(job_ids: list[str]) -> None:
    if job_ids:
        _output("scancel", *job_ids)


def state_of(job_id: str) -> str:
    """Return the state of a job or array task that has not been forgotten: RUNNING, CANCELLED, COMPLETING, ...

    Raises:
        UserError: SLURM does not answer, or does not know the job.
    """
    return _output("squeue", "--noheader", f"--jobs={job_id}", "--format=%T").strip()


def requeue(job_id: str) -> None:
    """Put a running job or array task back into the queue.

    Of an array's last task, SLURM_JOB_ID is the array's own number, which would mean all its tasks: name it as 12_3.
    """
    _output("scontrol", "requeue", job_id)


def exclude(names: Container[str], nodes: Sequence[str]) -> None:
    """Let this user's pending jobs of these names avoid nodes too, except those that would be left without any.

    Raises:
        UserError: SLURM does not answer or refuses.
    """
    # %x: the nodes that they avoid. A pending part of an array is one job: 12_[3-9%2], of which 2 may run at once.
    lines = _output("squeue", "--me", "--noheader", "--states=PENDING", "--format=%i|%j|%P|%x").splitlines()
    for job_id, name, partition, excluded in (line.split("|", 3) for line in lines):
        if name not in names:
            continue
        avoided = ",".join(filter(None, [excluded, *nodes]))
        if usable_nodes(partition) - set(_output("scontrol", "show", "hostnames", avoided).split()):
            _output("scontrol", "update", f"jobid={re.sub('%[0-9]+', '', job_id)}", f"ExcNodeList={avoided}")


def _is_known(name: str) -> bool:
    """Return whether the account still exists; squeue refuses a list with one that does not."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def user() -> str:
    """Return the name of this process's account, or its number where it has none."""
    return user_name(os.geteuid())


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=query_environment())
    except FileNotFoundError:
        raise UserError(f"{command[0]}: no such command; is this a SLURM login node?") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]}: SLURM did not answer within {TIMEOUT_SECONDS} s") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        cause = lines[-1].removeprefix(f"{command[0]}: ") if lines else f"exit code {done.returncode}"
        raise UserError(f"{command[0]}: {cause}")
    return done.stdout

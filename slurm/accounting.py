"""SLURM's accounting: the time, memory, cores and GPUs that jobs have asked for and used."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil

from slurm import commands

# A job's name stands last, as it may have any character.
_FIELDS = (
    "JobID", "State", "ElapsedRaw", "TimelimitRaw", "NNodes", "NTasks", "ReqCPUS", "ReqMem", "ReqTRES", "AllocTRES",
    "MaxRSS", "TotalCPU", "TRESUsageInAve", "JobName",
)  # fmt: skip
_UNITS = {unit: 1024**power for power, unit in enumerate(("", "K", "M", "G", "T", "P"))}
_RUNNING = ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "RESIZING")
Row = dict[str, str]


@dataclass(frozen=True)
class Allocation:
    """One start of a job or array task that has ended: what it asked for and used. None: accounting does not say."""

    job_id: str  # 12 or 12_3
    name: str
    state: str  # COMPLETED, FAILED, TIMEOUT, REQUEUED, PREEMPTED, NODE_FAIL, OUT_OF_MEMORY, CANCELLED, ...
    seconds: int
    limit_seconds: int | None
    nodes: int
    processes: int
    cores: int | None  # asked for, of all nodes
    memory: int | None  # bytes asked for, of each node
    gpus: int  # of all nodes
    cpu_seconds: float | None  # of all cores
    peak_memory: int | None  # bytes on a node, were its processes all as large as the largest
    gpu_percent: float | None  # how busy the GPUs were, where the cluster measures it


def allocations(job_ids: Iterable[str]) -> list[Allocation]:
    """Return every start of these jobs and of their array tasks that has ended, from one sacct call.

    Raises:
        UserError: the cluster has no accounting, or it does not answer.
    """
    if not (ids := ",".join(job_ids)):
        return []
    return parse(commands.sacct_lines("--duplicates", "--format=" + ",".join(_FIELDS), "--jobs=" + ids))


def parse(lines: Iterable[str]) -> list[Allocation]:
    """Return what lines with ``_FIELDS`` say, as sacct of SLURM 20.11 and later prints them.

    A start's steps follow it. What sacct leaves empty is not known; a line that is not one of these is passed over.
    """
    starts: list[tuple[Row, list[Row]]] = []
    for line in lines:
        values = line.split("|", len(_FIELDS) - 1)
        if len(values) < len(_FIELDS):
            continue
        row = dict(zip(_FIELDS, (value.strip() for value in values), strict=True))
        job_id, _, step = row["JobID"].partition(".")
        if not step:
            starts.append((row, []))
        elif starts and starts[-1][0]["JobID"] == job_id and step != "extern":  # in which nothing of the job runs
            starts[-1][1].append(row)
    return list(_ended(starts))


def _ended(starts: Iterable[tuple[Row, list[Row]]]) -> Iterator[Allocation]:
    for row, steps in starts:
        state = (row["State"].split() or ["UNKNOWN"])[0]  # CANCELLED by 1000
        seconds = _integer(row["ElapsedRaw"])
        if seconds and state not in _RUNNING:
            yield _allocation(row, steps, state, seconds)


def _allocation(row: Row, steps: list[Row], state: str, seconds: int) -> Allocation:
    asked, given = _tres(row["ReqTRES"]), _tres(row["AllocTRES"])
    limit, nodes = _integer(row["TimelimitRaw"]), _integer(row["NNodes"]) or 1
    cores = _integer(row["ReqCPUS"]) or _integer(asked.get("cpu")) or _integer(given.get("cpu"))
    # --mem=0 asks for all memory of a node.
    memory = _bytes(asked.get("mem")) or _asked_memory(row["ReqMem"], nodes, cores or 1) or _bytes(given.get("mem"))
    busy = [percent for step in steps if (percent := _busy(step)) is not None]
    return Allocation(
        job_id=row["JobID"],
        name=row["JobName"],
        state=state,
        seconds=seconds,
        limit_seconds=60 * limit if limit else None,
        nodes=nodes,
        processes=max((_tasks(step) for step in steps), default=1),
        cores=cores,
        memory=memory // nodes if memory else None,
        gpus=_integer(asked.get("gres/gpu")) or _integer(given.get("gres/gpu")) or 0,
        cpu_seconds=_cpu_seconds(row["TotalCPU"]) or None,  # 0: not measured, as of a job that was killed
        peak_memory=sum(map(_peak_memory, steps)) or None,  # the batch script's, and the processes' that it starts
        gpu_percent=max(busy, default=None),
    )


def _tasks(step: Row) -> int:
    return _integer(step["NTasks"]) or 1


def _peak_memory(step: Row) -> int:
    """Return the most memory of a step on one node; 0 where it is not known."""
    return (_bytes(step["MaxRSS"]) or 0) * ceil(_tasks(step) / (_integer(step["NNodes"]) or 1))


def _busy(step: Row) -> float | None:
    text = _tres(step["TRESUsageInAve"]).get("gres/gpuutil", "")
    return float(text) if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text) else None


def _tres(text: str) -> Row:
    """Return the parts of ``cpu=2,mem=1536M,gres/gpu=1``."""
    return {name: value for part in text.split(",") for name, _, value in [part.partition("=")]}


def _integer(text: str | None) -> int | None:
    """Return a number; None of ``UNLIMITED``, ``Partition_Limit``, ``Unknown`` and nothing."""
    return int(text) if text and re.fullmatch(r"[0-9]{1,15}", text) else None


def _bytes(text: str | None) -> int | None:
    """Return the bytes of ``1536M``, ``218228K``, ``1.50G`` or, without a unit, of bytes."""
    found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)([KMGTP]?)", text or "")
    return int(float(found[1]) * _UNITS[found[2]]) if found else None


def _asked_memory(text: str, nodes: int, cores: int) -> int | None:
    """Return the bytes of ReqMem on all nodes; before SLURM 21.08 it is per node, with an n at its end, or core: c."""
    amount = _bytes(text.rstrip("nc"))
    return amount * {"n": nodes, "c": cores}.get(text[-1:], 1) if amount else None


def _cpu_seconds(text: str) -> float | None:
    """Return the seconds of ``1-02:03:04``, ``02:03:04`` or ``03:04.567``."""
    found = re.fullmatch(r"(?:(\d{1,6})-)?(?:(\d{1,4}):)?(\d{1,4}):(\d{1,2}(?:\.\d{1,9})?)", text)
    if not found:
        return None
    days, hours, minutes = (int(part or 0) for part in found.groups()[:3])
    return 86400 * days + 3600 * hours + 60 * minutes + float(found[4])

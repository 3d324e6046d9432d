"""Jobs that run out of memory: how SLURM says so, and the larger memory that the next start of such a job asks for.

The process that is killed cannot ask, so the job's script does. SLURM lets its user change a job that was requeued and
has not ended yet, and starts it again only after its script has ended. Without memory to add, only the log says so.
"""

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.store import files
from slurm.environment import JOB_IN_SHELL

# What a job's log says, with cgroups and without, when SLURM has killed a process for its memory.
_WORDS = ("oom-kill", "oom_kill", "exceeded memory limit", "exceeded job memory limit", "out of memory")
_NOTE, _LOG = "_short_of_memory", re.compile(r"_\d+_log\.out$")  # of a job, or of one of several on its node


def is_told_by(log_end: str) -> bool:
    """Return whether the end of a log says that SLURM has killed a process for its memory."""
    return any(words in log_end.lower() for words in _WORDS)


def are_told(attempts: Sequence[dict[str, Any]], neighbours: Iterable[dict[str, Any]]) -> list[bool]:
    """Return of each attempt whether it ended out of memory, as its own part of its log says.

    ``neighbours`` are the attempts, of other runs too, that have written to the same logs. Notes of an earlier harness
    do not say where their part begins.
    """
    begins = sorted({(attempt["log"], attempt.get("log_bytes", 0)) for attempt in (*attempts, *neighbours)})
    following = {this: after[1] for this, after in pairwise(begins) if this[0] == after[0]}
    parts = ((attempt["log"], attempt.get("log_bytes", 0)) for attempt in attempts)
    return [is_told_by(files.tail(Path(log), begin=begin, end=following.get((log, begin)))) for log, begin in parts]


def count_in_shell(folder: Path) -> list[str]:
    """Return shell lines by which a job that starts counts what its log says of earlier starts."""
    logs = f"{shlex.quote(str(folder))}/{JOB_IN_SHELL}_*_log.out"
    count = f"cat {logs} 2>/dev/null | grep -ciE {shlex.quote('|'.join(_WORDS))}"
    return [f"kd_kills() {{ {count}; }}", "kd_earlier_kills=$(kd_kills)"]


def raise_in_shell(folder: Path, further: Sequence[float]) -> str:
    """Return a shell command by which a requeued job asks for the next of these gigabytes, if it was short of memory.

    It notes the megabytes that were too little in the job's folder.
    """
    note = f"{shlex.quote(str(folder))}/{JOB_IN_SHELL}{_NOTE}"
    larger = " ".join(str(megabytes(step)) for step in further)
    return (
        f'if [ "$(kd_kills)" -gt "$kd_earlier_kills" ]; then echo "$SLURM_MEM_PER_NODE" >> {note}; '
        f'for mb in {larger}; do if [ $mb -gt "$SLURM_MEM_PER_NODE" ]; then '
        f"scontrol update jobid={JOB_IN_SHELL} MinMemoryNode=$mb "
        '&& echo "$SLURM_MEM_PER_NODE MB were too little: the next start asks for $mb MB"; break; fi; done; fi'
    )


def megabytes(mem_gb: float) -> int:
    """Return an amount of memory in the unit in which SLURM is asked for it."""
    return int(mem_gb * 1024)


def asked_memory(log: str) -> dict[str, int]:
    """Return the MB that this start of a job asked for, and those that were too little for an earlier one, if any.

    These are the keys of an attempt's note. Where SLURM was asked for no certain memory, there is none.
    """
    if not (asked := os.environ.get("SLURM_MEM_PER_NODE", "")).isdecimal():
        return {}
    noted: list[str] = []
    with suppress(OSError):  # no start had too little
        noted = files.read_bytes(Path(_LOG.sub("", log) + _NOTE)).decode(errors="replace").split()
    too_little = [int(amount) for amount in noted if amount.isdecimal()]
    return {"memory_mb": int(asked)} | ({"too_little_mb": too_little[-1]} if too_little else {})

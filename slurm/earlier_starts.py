"""Earlier starts of runs that are submitted again: where one had too little, the next job asks for more.

Most jobs put themselves back into the queue. This is for those that could not.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError
from harness.store.store import Store
from slurm import accounting, left_nodes
from slurm.accounting import Allocation
from slurm.array_jobs import ArrayJob
from slurm.out_of_memory import megabytes
from slurm.profiles import Resources
from slurm.retry import Retry

_MB, _GB = 1024**2, 1024**3


@dataclass(frozen=True)
class EarlierStarts:
    """The starts of runs that have ended, as their attempts and the accounting, where there is one, tell them."""

    store: Store
    retry: Retry | None
    ended: Mapping[str, Sequence[Allocation]]  # by run_id
    left: Mapping[str, Sequence[str]]  # nodes that their jobs have left, by run_id

    @classmethod
    def of(
        cls, store: Store, retry: Retry | None, array_jobs: Iterable[ArrayJob], run_ids: Set[str]
    ) -> "EarlierStarts":
        """Return the starts of ``run_ids`` in these array jobs, from one sacct call; none where no retry needs them."""
        tasks = [
            (array_job, array_job.task(i), run_ids & set(pack))
            for array_job in array_jobs
            for i, pack in enumerate(array_job.packs)
            if array_job.job_id and not run_ids.isdisjoint(pack)
        ]
        starts: list[Allocation] = []
        with suppress(UserError):  # without accounting, attempts alone tell
            starts = accounting.allocations(sorted({task for _, task, _ in tasks}) if retry else [])
        ended: dict[str, list[Allocation]] = {}
        left: dict[str, list[str]] = {}
        for array_job, task, of_task in tasks:
            nodes = left_nodes.left_nodes(f"{array_job.folder}/{task}_0_log.out")
            for run_id in of_task:
                left.setdefault(run_id, []).extend(nodes)
                own = (start for start in starts if (start.name, start.job_id) == (array_job.name, task))
                ended.setdefault(run_id, []).extend(own)
        return cls(store, retry, ended, left)

    def raised(self, run_ids: Iterable[str], resources: Resources) -> Resources:
        """Return what a job of these runs asks for: as ``resources``, or more where one of them had too little."""
        if (retry := self.retry) is None:
            return resources
        minutes, mem_gb = resources.time_minutes, resources.mem_gb
        for run_id in run_ids:
            for attempt in self.store.attempts(run_id):
                if mem_gb and retry.max_mem_gb and attempt.get("memory_mb", 0) > attempt.get("too_little_mb", 0) > 0:
                    mem_gb = max(mem_gb, min(attempt["memory_mb"] / 1024, retry.max_mem_gb))
            for start in self.ended.get(run_id, ()):
                if start.state == "TIMEOUT":
                    asked = max(resources.time_minutes, (start.limit_seconds or 0) // 60)
                    minutes = max(minutes, retry.minutes_after(asked))
                if start.state == "OUT_OF_MEMORY" and mem_gb and resources.mem_gb:
                    had = max(resources.mem_gb, (start.memory or 0) / _GB)
                    mem_gb = max(mem_gb, retry.memory_after(had))
        return resources.model_copy(update={"time_minutes": minutes, "mem_gb": mem_gb})

    def noted(self, run_ids: Sequence[str], asked: Resources) -> dict[str, Any]:
        """Return the most minutes and MB that were too little for starts of these runs and are less than ``asked``, and
        the nodes that their jobs have left.

        These are the keys of an attempt's note, as far as they are known.
        """
        minutes, amounts = set[int](), set[int]()
        for run_id in run_ids if self.retry else ():
            amounts |= {attempt.get("too_little_mb", 0) for attempt in self.store.attempts(run_id)}
            for start in self.ended.get(run_id, ()):
                if start.state == "TIMEOUT":
                    minutes.add((start.limit_seconds or 0) // 60)
                if start.state == "OUT_OF_MEMORY":
                    amounts.add((start.memory or 0) // _MB)
        most = {
            "too_few_minutes": max((m for m in minutes if m < asked.time_minutes), default=0),
            "too_little_mb": max((mb for mb in amounts if mb < megabytes(asked.mem_gb or 0)), default=0),
        }
        nodes = list(dict.fromkeys(node for run_id in run_ids for node in self.left.get(run_id, ())))
        return {key: value for key, value in {**most, "avoided_nodes": nodes}.items() if value}

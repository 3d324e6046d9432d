"""The use of time, memory, cores and GPUs by a sweep's jobs: from SLURM's accounting, or else from the records."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.errors import UserError
from harness.hardware import is_gpu
from harness.planning.cost.history import JOB_COLUMNS, jobs
from harness.planning.plan import Planned
from harness.reporting.efficiency import Asked, JobUse
from harness.spec.lines import grouped
from harness.store import records
from harness.store.run_notes import last_retry
from slurm import accounting
from slurm.accounting import Allocation
from slurm.array_jobs import ArrayJob, ArrayJobs
from slurm.node_order import jobs_of, jobs_per_node_of

_COLUMNS = (*JOB_COLUMNS, "cost_waiting_s", "hardware", "threads", "processes", "peak_memory_bytes")


class JobUses(NamedTuple):
    """The use of each job, and why accounting that was asked did not answer; "" where it did."""

    jobs: list[JobUse]
    not_answered: str


@dataclass
class _Work:
    """Runs that a job of SLURM trains, or several in turn where the first ended too early."""

    jobs: list[set[str]]  # the runs of each job that shares the node, of one alone where none does
    jobs_per_node: int  # that the cores asked for are for
    run_ids: set[str] = field(default_factory=set)
    starts: list[Allocation] = field(default_factory=list)


def job_uses(planned: Planned) -> JobUses:
    """Return the use of every job that has trained runs of a plan and has ended.

    Raises:
        UserError: a damaged record, or a damaged note of a submission.
    """
    own = planned.plan.runs.keys()
    notes = [note for note in ArrayJobs(planned.store).read() if not own.isdisjoint(k for p in note.packs for k in p)]
    starts, not_answered = list[Allocation](), ""
    try:
        starts = accounting.allocations(note.job_id for note in notes if note.job_id)
    except UserError as e:
        not_answered = str(e)
    works = _works(notes, starts, own)
    rows = records.read_records(planned.store, own, _COLUMNS)
    row_of = {row["run_id"]: row for row in rows.to_pylist()}
    accounted = {k for work in works for k in work.run_ids}
    of_jobs = jobs(rows)
    job_of = dict(zip(rows.column("run_id").to_pylist(), of_jobs.index.tolist(), strict=True))
    on_node = _jobs_on_node(notes)
    others = grouped((k for k in row_of if k not in accounted), key=job_of.__getitem__)
    uses = [_accounted_use(planned, work, [row_of[k] for k in work.run_ids if k in row_of]) for work in works]
    for job, run_ids in others.items():
        of_job = [row_of[k] for k in run_ids]
        uses.append(_recorded_use(planned, of_job, float(of_jobs.seconds[job]), on_node.get(run_ids[0], 1)))
    return JobUses(uses, not_answered)


def _works(notes: Sequence[ArrayJob], starts: Sequence[Allocation], own: Collection[str]) -> list[_Work]:
    """Return the works of array tasks that accounting knows, as far as runs are a plan's ``own``.

    Where a task trained what an earlier one had not finished, both are one work.
    """
    by_task = grouped(starts, key=lambda start: (start.name, start.job_id))  # SLURM may use a job's number again
    works: list[_Work] = []
    work_of: dict[str, _Work] = {}
    for note in notes:
        for i, pack in enumerate(note.packs):
            run_ids = {k for k in pack if k in own}
            task = by_task.get((note.name, note.task(i)), [])
            if not run_ids or not task:
                continue
            work = next((work_of[k] for k in run_ids if k in work_of), None)
            if work is None:
                spec = note.specs[i] if note.specs else {"run_ids": pack}
                members = (run_ids.intersection(job["run_ids"]) for job in jobs_of(spec))
                works.append(work := _Work(list(filter(None, members)), jobs_per_node_of(spec)))
            work.run_ids |= run_ids
            work.starts += task
            work_of |= dict.fromkeys(run_ids, work)
    return works


def _jobs_on_node(notes: Iterable[ArrayJob]) -> dict[str, int]:
    """Return how many jobs share the node of a run that was submitted to a cluster."""
    orders = [jobs_of(spec) for note in notes for spec in note.specs]
    return {run_id: len(jobs) for jobs in orders for job in jobs for run_id in job["run_ids"]}


def _accounted_use(planned: Planned, work: _Work, rows: Sequence[Mapping[str, Any]]) -> JobUse:
    last, seconds = work.starts[-1], sum(start.seconds for start in work.starts)
    processes = max(start.processes for start in work.starts)
    peaks = [start.peak_memory for start in work.starts if start.peak_memory]
    on_node = -(-processes // last.nodes) * len(work.jobs)
    # SLURM looks at the memory now and then, and may miss the peak that a process knows of itself.
    peaks += [row["peak_memory_bytes"] * on_node for row in rows if not is_gpu(row["hardware"])]
    measured = [(start.cpu_seconds, start.seconds) for start in work.starts if start.cpu_seconds]
    busy = [(start.gpu_percent, start.seconds) for start in work.starts if start.gpu_percent is not None]
    return JobUse(
        **_plan_facts(planned, work.jobs[0]),
        asked=Asked(
            minutes=last.limit_seconds // 60 if last.limit_seconds else None,
            memory=last.memory,
            nodes=last.nodes,
            processes=processes,
            cores=last.cores // (processes * work.jobs_per_node) if last.cores else None,
            gpus=last.gpus,
        ),
        finished=last.state == "COMPLETED" and len(rows) == len(work.run_ids),
        seconds=seconds,
        memory=max(peaks, default=None),
        cores=sum(c for c, _ in measured) / sum(s for _, s in measured) / (processes * len(work.jobs))
        if measured
        else None,
        gpu_percent=sum(percent * s for percent, s in busy) / sum(s for _, s in busy) if busy else None,
        starts=len(work.starts),
        ends=Counter(start.state for start in work.starts if start.state != "COMPLETED"),
        source="accounting",
        waiting=_waiting(rows),
    )


def _recorded_use(planned: Planned, rows: Sequence[Mapping[str, Any]], seconds: float, on_node: int) -> JobUse:
    row = rows[0]
    gpu, processes = is_gpu(row["hardware"]), row["processes"]
    # A record's memory is the GPU's where there is one, and of one process: ``on_node`` jobs share the node's.
    memory = on_node * max(row["peak_memory_bytes"] for row in rows) if not gpu and processes == 1 else None
    return JobUse(
        **_plan_facts(planned, [row["run_id"] for row in rows]),
        asked=Asked(None, None, None, processes, row["threads"], processes if gpu else 0),
        finished=True,
        seconds=seconds,
        memory=memory,
        cores=None,
        gpu_percent=None,
        starts=max(row["attempts"] for row in rows),
        ends=Counter(),
        source="records",
        waiting=_waiting(rows),
    )


def _waiting(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the share of runs' training in which they waited for images; None: not known, of none or older ones."""
    known = [(row["cost_waiting_s"], row["cost_total_s"]) for row in rows if row["cost_waiting_s"] is not None]
    seconds = sum(total for _, total in known)
    return sum(waited for waited, _ in known) / seconds if seconds else None


def _plan_facts(planned: Planned, run_ids: Collection[str]) -> dict[str, Any]:
    """Return what the plan of a job's runs and the notes of their attempts tell."""
    sciences = [planned.plan.runs[k].science for k in run_ids]
    retries = (last_retry(planned.store.attempts(k)) for k in run_ids)
    return {
        "student": sciences[0].student,
        "teacher": next((science.teacher_model for science in sciences if science.teacher), None),
        "packs": len({science.seed for science in sciences}),
        "retry": next(filter(None, retries), ""),
    }

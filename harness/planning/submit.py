"""Submission of a sweep: what is left to train, what it will take, and the queue that its jobs come from."""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.console.terminal import say
from harness.errors import UserError, raise_mistakes
from harness.hardware import cores, gpus
from harness.phrases import plural
from harness.planning.cost import devices, estimate, text
from harness.planning.cost.estimate import Estimate
from harness.planning.cost.plan import PlanCosts
from harness.planning.jobs import PlannedJob, packs_to_do, plan_jobs
from harness.planning.nearest_records import NearRecords, nearest_records, reasons
from harness.planning.plan import Planned, plan_sweep
from harness.planning.teacher_weights import lost_teachers
from harness.planning.tracking_process import Tracking
from harness.spec.idle_settings import idle_settings
from harness.store import ownership

if TYPE_CHECKING:
    from harness.planning.tuning_notification import TuningNotification
    from harness.reporting.comparison import Contents
    from slurm.queue import Notification, Queue

LOCAL = "local"
MOST_CPU_JOBS = 8  # at once on this machine, unless --max-parallel says otherwise


@dataclass(frozen=True)
class Request:
    """A sweep file with its overrides, where its jobs run, and what its methods are compared with."""

    file: Path
    results: Path
    data: Path | None
    sets: Sequence[str]
    only: Sequence[str]
    cluster: str
    max_parallel: int | None
    packs_per_job: int | None
    baseline: str | None
    margin: float | None
    keep_best: bool = False
    tracking: Tracking = field(default_factory=Tracking)
    notify: str | None = None  # the command that tells how the sweep ends
    notification: "TuningNotification | None" = None  # of a tuning, whose queues tell nothing

    def plan(self, fetch: bool) -> Planned:
        """Return the sweep's plan; ``fetch``: download given weights whose sha256 is not known.

        Raises:
            UserError: any mistake in the file, in the overrides or in what it refers to.
        """
        return plan_sweep(self.file, self.results, self.data, self.sets, self.only, fetch)

    def contents(self, planned: Planned) -> "Contents":
        """Return what the sweep's tables show.

        Raises:
            UserError: the sweep has no such baseline.
        """
        from harness.reporting.comparison import Contents

        contents = Contents.of(planned.name, planned.plan).with_options(self.baseline, self.margin)
        return contents.with_tuning_of(planned.store.table_folder(planned.name))

    def track(self, planned: Planned) -> None:
        """Show the plan's runs in the tools that the command names, from now on."""
        from harness.reporting.comparison import Contents

        self.tracking.follow(Contents.of(planned.name, planned.plan))


@dataclass(frozen=True)
class Work:
    """Runs of a planned sweep that are left to train, and what they will take."""

    planned: Planned
    cluster: str
    states: dict[str, str]
    to_do: frozenset[str]
    jobs: tuple[PlannedJob, ...]
    at_once: int  # jobs
    jobs_per_node: int  # of a cluster, at most
    estimate: Estimate | None  # None: there is nothing to do
    keep_best: bool = False  # whether the weights of each run's best epoch are kept too
    notify: str | None = None
    near: tuple[NearRecords, ...] = ()  # of runs to do, where that was asked for

    @property
    def packs(self) -> int:
        return sum(len(job.packs) for job in self.jobs)

    def summary(self) -> dict[str, Any]:
        """Return the counts and the estimate as plain data."""
        done = sum(state == "done" for state in self.states.values())
        return {
            "sweep": self.planned.name,
            "runs": len(self.states),
            "cells": len(self.planned.plan.cells),
            "to_do": len(self.to_do),
            "done": done,
            "failed": len(self.states) - len(self.to_do) - done,
            "packs": self.packs,
            "jobs": len(self.jobs),
            "jobs_at_once": self.at_once,
            "jobs_per_node": self.jobs_per_node,
            "estimate": asdict(self.estimate) if self.estimate else None,
            "differences": [records.to_json() for records in self.near],
            "idle_settings": list(idle_settings(self.planned.plan)),
        }

    def _done_without_best(self) -> int:
        store, done = self.planned.store, (k for k, state in self.states.items() if state == "done")
        return sum(not store.best_weights(run_id).exists() for run_id in done)

    def _sbatch_variables(self) -> str:
        if self.cluster == LOCAL:
            return ""
        from slurm import profiles, sbatch_variables

        return sbatch_variables.note(profiles.load_profile(self.cluster))

    def text(self) -> str:
        """Return the same as lines for people."""
        counts = self.summary()
        lines = [
            f"{counts['sweep']}: {plural(counts['runs'], 'run')} for {plural(counts['cells'], 'cell')}: "
            f"{counts['to_do']} to do, {counts['done']} done, {counts['failed']} failed"
        ]
        if self.estimate:
            in_jobs = f" in {plural(len(self.jobs), 'job')}" if len(self.jobs) < self.packs else ""
            on_node = f", up to {self.jobs_per_node} on a node" if self.jobs_per_node > 1 else ""
            lines.append(f"{plural(self.packs, 'pack')}{in_jobs}, {plural(self.at_once, 'job')} at a time{on_node}")
            lines += text.estimate_lines(self.estimate, self.cluster != LOCAL)
            lines += filter(None, [self._sbatch_variables()])
        lines += reasons(self.near)
        lines += self.planned.teacher_notes()
        lines += map(str, lost_teachers(self.planned, self.to_do))
        if counts["failed"]:
            lines.append("failed runs are not trained again unless --retry-failed is given")
        if self.keep_best and (without := self._done_without_best()):
            lines.append(f"{plural(without, 'finished run')} trained without --keep-best, with the last weights only")
        lines += [f"warning: without effect: {text}" for text in counts["idle_settings"]]
        return "\n".join(lines)


def work_of(
    request: Request, planned: Planned, retry_failed: bool = False, probe: bool = False, why_again: bool = False
) -> Work:
    """Return what is left to train.

    Args:
        probe: time a few steps of what no past run is like.
        why_again: state what differs from the nearest records.

    Raises:
        UserError: there is no such cluster profile.
    """
    cluster, states = request.cluster, planned.states()
    to_do = frozenset(k for k, s in states.items() if s == "to do" or (retry_failed and s == "failed"))
    packs = packs_to_do(planned, to_do)
    if not packs:
        return Work(planned, cluster, states, to_do, (), 1, 1, None, request.keep_best)
    at_once = request.max_parallel or (len(packs) if cluster != LOCAL else len(gpus()) or min(MOST_CPU_JOBS, cores()))
    at_once = min(at_once, len(packs))
    device = devices.devices(cluster, devices.threads_of_a_job(at_once))
    known = estimate.pack_costs(planned)
    if probe:
        from harness.planning.cost import probe_results
        from harness.planning.cost.probe import probe as measure

        measure(planned, to_do, device, known, planned.data_folder())
        known = replace(known, probes=probe_results.read_probe_results(planned.store))
    costs = PlanCosts(planned, device, known)
    jobs = plan_jobs(packs, at_once, costs, request.packs_per_job)
    if len(jobs) < at_once:
        at_once = len(jobs)
        costs = PlanCosts(planned, devices.devices(cluster, devices.threads_of_a_job(at_once)), known)
    expected = estimate.estimate(jobs, at_once, costs)
    near = nearest_records(planned, to_do, known.similar_runs) if why_again else ()
    options = (request.keep_best, request.notify, near)
    jobs_per_node = max(costs.device_of(job.packs[0]).jobs_per_node for job in jobs)
    return Work(planned, cluster, states, to_do, tuple(jobs), at_once, jobs_per_node, expected, *options)


def check_writable(work: Work) -> None:
    """Check that this user may write what the work leaves in the store, down to the table at its end.

    Raises:
        UserError: another user's folder is closed.
    """
    store = work.planned.store
    of_all = [store.root, store.jobs, store.records, store.root / "queues", store.root / "failures", store.all_tables]
    runs = map(store.run, sorted(work.to_do))
    ownership.check_writable([*of_all, store.table_folder(work.planned.name), *runs])


def submit(work: Work) -> Path:
    """Write what jobs read, start them, and return the queue's file. When data or weights are missing, nothing changes.

    Raises:
        UserError: data, given weights or those of a trained teacher are missing, another user's folders are closed,
            or the cluster refuses.
    """
    from harness.planning.cost import submissions  # reads records, and so waits for pyarrow
    from slurm import backend
    from slurm.queue import own_queue_file

    assert work.estimate
    planned, store = work.planned, work.planned.store
    folder = planned.data_folder()
    weights = planned.weights_files(work.to_do)
    raise_mistakes([UserError(str(teacher)) for teacher in lost_teachers(planned, work.to_do)])
    check_writable(work)
    for run_id in (k for k in work.to_do if work.states[k] == "failed"):
        store.archive_failure(run_id)
    for run_id in (k for job in work.jobs for k in job.run_ids):
        store.write_science(run_id, planned.plan.runs[run_id].science)
    queue_file = own_queue_file(store, planned.name, planned.plan.runs)
    replace(_queue(work), data=str(folder) if folder else None, weights=weights, notify=_notification(work)).write(
        queue_file
    )
    submissions.note_submission(store, planned.name, work.to_do, work.estimate)
    if postponed := backend.backend_of(queue_file).start():
        say(
            f"{plural(postponed, 'run')} not submitted yet, because SLURM limits how many jobs you may submit: "
            "keep watching, or run the sweep again"
        )
    return queue_file


def _notification(work: Work) -> "Notification | None":
    from slurm.queue import Notification

    if work.notify is None:
        return None
    counts = work.summary()
    numbers = counts["runs"], counts["done"], counts["failed"]
    return Notification(work.notify, os.getcwd(), work.planned.name, *numbers, time.time_ns())


def scripts(work: Work) -> list[str]:
    """Return the scripts that sbatch would be given to train what is left; nothing is submitted or written.

    Raises:
        UserError: SLURM does not answer, or the profile does not suit a run.
    """
    from slurm.cluster import Cluster
    from slurm.queue import own_queue_file

    if not work.jobs:
        return []
    runs = work.planned.plan.runs
    queue_file = own_queue_file(work.planned.store, work.planned.name, runs)
    return Cluster(queue_file, _queue(work)).scripts({k: runs[k].science for k in work.to_do})


def _queue(work: Work) -> "Queue":
    """Return the queue of what is left, without the places of data and weights."""
    from slurm.queue import Queue, QueuedJob

    sciences = {k: run.science for k, run in work.planned.plan.runs.items()}
    jobs = (({k: sciences[k] for k in job.run_ids}, job.needs, job.also_needs) for job in work.jobs)
    return Queue(
        store=str(work.planned.store.root),
        jobs=tuple(QueuedJob.from_sciences(*job) for job in jobs),
        max_parallel=work.at_once,
        threads=devices.threads_of_a_job(work.at_once),
        data=None,
        weights={},
        cluster=named_anywhere(work.cluster),
        keep_best=work.keep_best,
    )


def named_anywhere(cluster: str) -> str | None:
    """Return a profile's name, or its file's absolute path; None for this machine."""
    if cluster == LOCAL:
        return None
    return str(Path(cluster).resolve()) if cluster.endswith((".yaml", ".yml")) else cluster

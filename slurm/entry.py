"""The function that submitit runs in a job on a cluster. Its arguments are plain values, no objects of the harness."""

import atexit
import os
import signal
import sys
import time
import traceback
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from shutil import which
from typing import Any

from harness.console.terminal import escape_output
from harness.errors import UserError
from harness.hardware import gpus, has_driver
from harness.store import files
from harness.store.log_streams import open_log_streams
from harness.store.store import Store
from harness.training.distributed import rendezvous
from harness.training.job_order import JobOrder
from harness.training.suspension import watch_suspensions
from slurm import attempt_notes, left_nodes, out_of_memory, staging
from slurm.containers import REQUEUE_CODE
from slurm.imports import without_garbage_collection

STOPPING = (signal.SIGUSR2, signal.SIGTERM)  # the signals that ask a job to stop
RENDEZVOUS_SECONDS = 300.0
REQUEUE_TRIES, REQUEUE_PAUSE = 60, 5.0  # not a time, which runs on while SLURM has suspended the job
# That of a process that was killed: the job's script requeues it. Processes lose each other, too, where SLURM has
# suspended them for longer than they wait for each other.
LOST_RANK_CODE = 128 + signal.SIGHUP
MEMORY_ATTEMPTS = 3  # starts of a run that ends out of memory: more with the same memory would end in the same way


def note_signals() -> list[int]:
    """Return a list to which each USR2 and TERM will be added."""
    signals: list[int] = []
    for signum in STOPPING:
        signal.signal(signum, lambda s, _: signals.append(s))
    return signals


# Jobs name this function, and copies of the code that earlier versions made for their jobs know it as `run`.
def run(order: dict[str, Any], max_attempts: int) -> None:
    """Train the runs of a ``JobOrder``.

    USR2 (the time limit is near) and TERM (preempted, cancelled) end it after the running step, with every run
    checkpointed. The job then puts itself back into SLURM's queue, unless it is being cancelled or is out of time.
    Where there are no commands of SLURM, as in a container, its script does so.
    """
    began = time.monotonic()
    watch_suspensions()
    open_log_streams()
    exit_codes: list[int] = []
    atexit.register(end_process, exit_codes)
    escape_output()  # so that a job's log can be shown on a terminal by any program
    signals = note_signals()  # in place of submitit's handler, which would stop in mid-step

    import submitit

    job, job_order = submitit.JobEnvironment(), JobOrder.from_json(order)
    if job.num_tasks > 1:
        _join(job)
    log, store = str(job.paths.stdout), Store(Path(job_order.store))
    if job.global_rank == 0:
        fail_after_max_attempts(store, job_order.run_ids, max_attempts, log)
        if job.num_tasks == 1 and set(job_order.run_ids) <= store.done_ids() | store.failed_ids():
            exit_codes.append(0)
            tell(store, job)
            return
    if job_order.stage and job_order.data:
        staged = staging.stage(Path(job_order.data), job_order.stage, lambda: bool(signals))
        job_order = replace(job_order, data=str(staged))
    job_order = replace(job_order, asked=attempt_notes.asked_at_start(job_order.asked, log))
    with without_garbage_collection():
        from harness.training.distributed.ranks import LostRank
        from harness.training.job import run_job  # not before: a job may be killed for its memory right here
        from slurm.first_failure import FirstFailure

    leads = job.global_rank == 0
    if not has_usable_gpus():
        exit_codes.append(1)
        return
    if leads:
        left_nodes.note_begin(log)
    first_failure = FirstFailure(store, queue_file(store, job), job_order.run_ids) if leads else None
    # A grace time may be shorter than the start of a run, to its first step. Several processes agree on a stop later.
    stopped = signals and job.num_tasks == 1
    try:
        with left_nodes.excluding(store, log) if leads else nullcontext():
            finished = not stopped and run_job(job_order, lambda: bool(signals), log, began)
    except LostRank:
        traceback.print_exc()
        sys.stdout.flush()
        os._exit(LOST_RANK_CODE)
    exit_codes.append(requeue(job.job_id) if leads and not finished else 0)
    if first_failure and finished:
        first_failure.end_look()
        tell(store, job)


def queue_file(store: Store, job: Any) -> Path:
    """Return the queue that a job of submitit is of."""
    from slurm.array_jobs import queue_file_of

    return queue_file_of(store, Path(job.paths.folder).name)


def tell(store: Store, job: Any) -> None:
    """Tell this job's user what has become of its queue."""
    from slurm.blocked_runs import why_blocked_in_slurm
    from slurm.notification import is_watched, tell

    path = queue_file(store, job)
    tell(path, lambda queue: why_blocked_in_slurm(queue, is_watched(path)))


def has_usable_gpus() -> bool:
    """Return whether torch can use the GPUs that SLURM gave this job, if any; the log says where it cannot.

    Without NVIDIA's driver, as on a cluster for trials, the job trains on the CPU; its records name the processor.
    """
    import torch

    if not gpus() or torch.cuda.is_available():
        return True
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "all of this machine")
    problem = f"SLURM gave this job GPUs ({given}), but torch cannot use them"
    broken = has_driver()
    print(f"error: {problem}" if broken else f"warning: {problem}: training on the CPU", flush=True)
    return not broken


def requeue(job_id: str) -> int:
    """Put this job, or this task of an array (12_3), back into SLURM's queue, and return the exit code to end with.

    In a container without SLURM's commands, the code asks the job's script to do so.

    A job that is preempted with a grace time is still RUNNING: were it to end by itself, SLURM would call it COMPLETED
    and forget it. One that is cancelled or out of time is not, and ends.

    While SLURM does not answer the job stays, as SLURM requeues a preempted one that runs at the end of its grace time.
    So does one that is suspended, which SLURM is about to stop or has just resumed: it can be requeued when it runs.

    Raises:
        UserError: SLURM does not answer ``REQUEUE_TRIES`` times, or the job may not be requeued.
    """
    from slurm import commands

    if which("scontrol") is None:
        return REQUEUE_CODE
    tries = 0
    while True:
        tries += 1
        try:
            if (state := commands.state_of(job_id)) == "SUSPENDED":
                raise UserError(f"squeue: job {job_id} is suspended")
            if state == "RUNNING":
                commands.requeue(job_id)
            return 0
        except UserError as e:
            if tries >= REQUEUE_TRIES:
                raise
            print(f"not requeued yet: {e}", flush=True)
        time.sleep(REQUEUE_PAUSE)


def end_process(exit_codes: list[int]) -> None:
    """End this process now, with this code, if its work is done.

    A library that leaves a C++ thread running lets the process abort when it unloads, which would fail the job.
    """
    if exit_codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_codes[0])


def fail_after_max_attempts(
    store: Store, run_ids: Collection[str], max_attempts: int, log: str, restarts: int = 0
) -> None:
    """Record a failure of runs that were started too often in a row without a new checkpoint, so that requeuing ends.

    Starts that end out of memory may be fewer, with or without one: a checkpoint may come just before the kill. Those
    with less memory than this one do not count.
    ``restarts``: those that SLURM does not count.
    """
    asked = out_of_memory.asked_memory(log)
    memory = asked.get("memory_mb", 0)
    has_more = memory > asked.get("too_little_mb", 0) > 0
    of_job = [a for k in run_ids for a in store.attempts(k) if a["log"] == log]
    noted = {(a["host"], a.get("pid")) for a in of_job}
    # Starts of this job that died before they noted any run. Others may have been for another seed's runs.
    not_noted = max(0, int(os.environ.get("SLURM_RESTART_COUNT", "0")) + restarts - len(noted))
    last_begin = max((a.get("log_bytes", 0) for a in of_job), default=0)
    last_for_memory = out_of_memory.is_told_by(files.tail(Path(log), begin=last_begin))
    for run_id in set(run_ids) - store.done_ids() - store.failed_ids():
        attempts = store.attempts_since_failure(run_id)
        fruitless = store.fruitless_attempts(run_id) + not_noted
        # What cannot note a run dies of the same each time.
        ends = out_of_memory.are_told(attempts, of_job) + [last_for_memory] * not_noted
        with_as_much = [a.get("memory_mb", memory) >= memory for a in attempts] + [not has_more] * not_noted
        given_up = sum(map(all, zip(ends, with_as_much, strict=True))) >= MEMORY_ATTEMPTS
        if fruitless < max_attempts and not given_up:
            continue
        cause, kind = f"no progress in {fruitless} attempts", "killed"
        log_end = files.tail(Path((attempts or [{"log": log}])[-1]["log"]))
        if given_up or ends[-1:] == [True]:
            key = "max_mem_gb" if "too_little_mb" in asked else "mem_gb"
            which = "" if all(ends) else f"{sum(ends)} of them "
            cause = f"no result after {len(ends)} attempts, {which}out of memory: raise `{key}` in the profile"
        elif files.names_full_disk(log_end):
            cause, kind = f"{cause}: no space left on the disk", "disk"
        store.write_failure(run_id, kind, cause, log_end, log)
        print(f"{run_id}: failed: {cause}", flush=True)


def _join(job: Any) -> None:
    """Set the variables by which this job's processes find each other.

    The first process creates a private file in the job's folder. A job on one node listens on loopback alone.
    """
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    path = Path(job.paths.folder) / f"rendezvous-{job.job_id}-{restarts}"
    if job.global_rank == 0:
        rendezvous.create_rendezvous(path)
    rendezvous.await_rendezvous(path, RENDEZVOUS_SECONDS)
    # Tasks are distributed from the first node on, and that is where the batch script launches them.
    rendezvous.use_interface("127.0.0.1" if job.num_nodes == 1 else os.environ["SLURM_LAUNCH_NODE_IPADDR"])
    # LOCAL_RANK is the number of its GPU, and tasks with GPUs of their own (`gpus-per-task`) each count from 0.
    local_rank = job.local_rank % (len(gpus()) or job.num_tasks)
    numbers = {"RANK": job.global_rank, "LOCAL_RANK": local_rank, "WORLD_SIZE": job.num_tasks}
    os.environ.update({rendezvous.FILE: str(path), **{name: str(value) for name, value in numbers.items()}})

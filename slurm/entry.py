"""The function that submitit runs in a job. Its arguments are plain values: nothing of ours is pickled into code."""

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from harness.store import files
from harness.store.store import Store

MEETING_SECONDS = 300.0
MEMORY_ATTEMPTS = 3  # starts of a run that ends out of memory: more of them would hardly end otherwise
# How SLURM says in a job's log, with cgroups and without, that a process was killed for its memory.
OUT_OF_MEMORY = ("oom-kill", "oom_kill", "exceeded memory limit", "exceeded job memory limit", "out of memory")


def _give_up_hopeless(store: Store, run_ids: list[str], max_attempts: int, log: str) -> None:
    """Runs that were started so often without a result get a failure, so that a requeue cannot go on for ever."""
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))  # counts those that died before they could note it
    for run_id in set(run_ids) - store.done_ids() - store.failed_ids():
        if (count := max(len(store.attempts_since_failure(run_id)), restarts)) < min(max_attempts, MEMORY_ATTEMPTS):
            continue
        last = files.tail(Path((store.attempts(run_id) or [{"log": log}])[-1]["log"]))
        for_memory = any(words in last.lower() for words in OUT_OF_MEMORY)
        if for_memory or count >= max_attempts:
            cause = f"no result after {count} attempts"
            if for_memory:
                cause += ", out of memory: raise `mem_gb` in the profile"
            store.write_failure(run_id, "killed", cause, last, log)
            print(f"{run_id}: {cause}: given up", flush=True)


def free_port() -> int:
    """A TCP port that nothing on this machine uses now."""
    with socket.socket() as s:
        s.bind(("", 0))
        port: int = s.getsockname()[1]
        return port


def _meet(job: Any) -> None:
    """Tells torch where this job's processes meet, in torchrun's variables.

    The first process picks a port that is free on its node, so that jobs which share a node do not collide, and
    leaves it in the job's folder for the others.
    """
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    note = Path(job.paths.folder) / f"rendezvous-{job.job_id}-{restarts}.json"
    if job.global_rank == 0:
        # Tasks are handed out from the first node on, and that is where the batch script launches them.
        address = os.environ["SLURM_LAUNCH_NODE_IPADDR"]
        files.replace_json(note, {"MASTER_ADDR": address, "MASTER_PORT": str(free_port())}, durable=False)
    end = time.monotonic() + MEETING_SECONDS
    while (place := files.read_json(note)) is None:
        if time.monotonic() > end:
            raise TimeoutError(f"{note}: the first process of the job did not write it in {MEETING_SECONDS:.0f} s")
        time.sleep(0.1)
    numbers = {"RANK": job.global_rank, "LOCAL_RANK": job.local_rank, "WORLD_SIZE": job.num_tasks}
    os.environ.update({**place, **{name: str(value) for name, value in numbers.items()}})


def run_job(spec: dict[str, Any], max_attempts: int | None = None) -> None:
    """Trains one pack; ``spec`` holds the fields of ``harness.training.job.PackJob`` but for the log's path.

    USR2 (the time limit is near) and TERM (preempted, cancelled) end it after the running step with every run
    checkpointed. After USR2 the job puts itself back into SLURM's queue; whether to after TERM is SLURM's to decide.
    """
    began = time.time()
    told: list[int] = []
    for signum in (signal.SIGUSR2, signal.SIGTERM):  # in place of submitit's, which would leave in mid-step
        signal.signal(signum, lambda s, _: told.append(s))

    import submitit

    job = submitit.JobEnvironment()
    if job.num_tasks > 1:
        _meet(job)
    log = str(job.paths.stdout)
    if max_attempts is not None and job.global_rank == 0:
        store = Store(Path(spec["store"]))
        _give_up_hopeless(store, spec["run_ids"], max_attempts, log)
        if job.num_tasks == 1 and set(spec["run_ids"]) <= store.done_ids() | store.failed_ids():
            return
    from harness.training.job import PackJob, run_pack  # not before: a job may be killed for its memory right here

    finished = run_pack(
        PackJob(**{**spec, "run_ids": tuple(spec["run_ids"])}, log=log, began=began), lambda: bool(told)
    )
    if not finished and job.global_rank == 0 and signal.SIGUSR2 in told and "SLURM_JOB_ID" in os.environ:
        from slurm import commands

        commands.requeue(os.environ["SLURM_JOB_ID"])

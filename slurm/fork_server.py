"""The fork server: a process that has imported torch and forks the local queue's jobs, so that each starts at once.

It reads requests as lines of JSON and answers each, on the file descriptor that it is given, with the exit codes of the
jobs that have ended since the last answer. It has no threads and touches no GPU. When it dies its jobs go on, and so do
they when the process that asked for them dies.

    python -m slurm.fork_server DESCRIPTOR QUEUE.json
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.store.log_streams import open_log_streams
from slurm.entry import STOPPING, has_usable_gpus, note_signals
from slurm.imports import without_garbage_collection
from slurm.module_command import module_command
from slurm.snapshot import CHECKOUT, PACKAGES

STOPPED = 75  # the exit code of a job that a signal has stopped
# Threads do not survive a fork: NumPy and pyarrow must not start theirs when they are imported.
WITHOUT_THREADS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}


class ForkServer:
    """A fork server, started with the code and the environment of now.

    Its command line, and so its jobs', names the queue: ``slurm.processes`` finds them by that.
    """

    def __init__(self, queue_file: Path) -> None:
        self._version = _version()
        answers, end = os.pipe()  # not its stdout, to which a module may print when it is imported
        command = module_command("slurm.fork_server", end, queue_file)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, pass_fds=(end,), env=os.environ | WITHOUT_THREADS, text=True
        )
        os.close(end)
        self._answers = os.fdopen(answers)
        self._jobs: set[str] = set()  # that have not ended
        self._exit_codes: dict[str, int] = {}

    @property
    def is_outdated(self) -> bool:
        """Return whether the harness's code or this process's environment has changed since, or the server is gone."""
        return self._process.poll() is not None or self._version != _version()

    def start(self, log: Path, order: dict[str, Any], gpu: str | None) -> None:
        """Start a job for a ``JobOrder``, which sees only the given GPU and prints to a file of its own."""
        self._jobs.add(str(log))
        self._ask({"log": str(log), "order": order, "gpu": gpu})

    def has_ended(self, log: Path) -> bool:
        """Return whether the job with this log has ended; True too when the server is gone and nobody knows."""
        self._ask(None)
        return str(log) not in self._jobs

    def exit_code(self, log: Path) -> int | None:
        """Return how the job with this log has ended, -9 by SIGKILL; None when the server is gone and nobody knows."""
        return self._exit_codes.get(str(log))

    def stop_jobs(self) -> None:
        """Ask all jobs to end after the running step, with every run checkpointed."""
        self._ask("stop")

    def close(self) -> None:
        """End the server; its jobs go on."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._answers.close()
        self._process.wait()

    def _ask(self, request: dict[str, Any] | str | None) -> None:
        assert self._process.stdin is not None
        answer = ""
        with suppress(BrokenPipeError):
            print(json.dumps(request), file=self._process.stdin, flush=True)
            answer = self._answers.readline()
        ended = json.loads(answer) if answer else dict.fromkeys(self._jobs)
        self._jobs -= ended.keys()
        self._exit_codes |= {log: code for log, code in ended.items() if code is not None}


def _version() -> tuple[list[tuple[str, int]], dict[str, str]]:
    """Return the harness's files, each with the time of its last change, and the environment."""
    files = (path for package in PACKAGES for path in (CHECKOUT / package).rglob("*.py"))
    return sorted((str(path), path.stat().st_mtime_ns) for path in files), dict(os.environ)


def _run_job(answers: int, order: dict[str, Any], log: str, gpu: str | None) -> None:
    """Train the runs of an order. USR2 and TERM end it after the running step, with every run checkpointed."""
    began = time.monotonic()
    os.close(answers)  # so that it ends with the server
    for fd, path, flags in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
        os.dup2(os.open(path, flags, 0o666), fd)
    os.dup2(1, 2)
    open_log_streams()
    for name in WITHOUT_THREADS:
        os.environ.pop(name)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu

    import numpy as np

    from harness.training.job import run_job
    from harness.training.job_order import JobOrder
    from harness.training.suspension import watch_suspensions

    np.random.seed()  # jobs would draw the same numbers; Python's own generator is seeded at a fork
    signals = note_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    if "SLURM_JOB_ID" in os.environ:
        watch_suspensions()
        if not has_usable_gpus():
            sys.exit(1)
    if not run_job(JobOrder.from_json(order), lambda: bool(signals), log, began):
        sys.exit(STOPPED)


def main() -> None:
    from harness.console.terminal import escape_output
    from harness.store import provenance
    from harness.training import host_memory

    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # SLURM sends them to all processes: they are for the jobs
    escape_output()  # so that a job's log can be shown on a terminal by any program
    host_memory.retain_freed_memory()  # before torch makes a tensor, perhaps when it is imported; jobs inherit it
    with without_garbage_collection():
        import pyarrow

        import harness.training.job  # noqa: F401

        pyarrow.scalar(0)  # imports pandas
    provenance.git_state()  # of the code that the jobs run, whatever is committed meanwhile
    provenance.versions()
    fork = multiprocessing.get_context("fork")
    jobs: dict[str, Any] = {}  # processes by log
    answers = int(sys.argv[1])
    for line in sys.stdin:
        if (request := json.loads(line)) == "stop":
            for job in jobs.values():
                job.terminate()
        elif request is not None:
            jobs[request["log"]] = job = fork.Process(target=_run_job, args=(answers,), kwargs=request)
            job.start()
        ended = {log: job.exitcode for log, job in jobs.items() if not job.is_alive()}
        for log in ended:
            jobs.pop(log).close()
        os.write(answers, f"{json.dumps(ended)}\n".encode())
    os._exit(0)  # a normal end would wait for the jobs


if __name__ == "__main__":
    main()

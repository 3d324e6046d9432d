"""Bench of a sweep of 2,000 short runs through a real SLURM on this machine, and of the cost of a job there.

The sweep has one teacher and 10 variants of KD for each of 200 seeds, with one epoch of digits each; a pack of 10 runs
is an array task. No run may be lost, run twice or hang. The calls of SLURM's commands and the CPU seconds of the login
node are counted.

The ratio compares two arrays: CPU seconds of a task that only starts Python and imports torch, over those of a task
that the harness submitted to train one run, with everything that belongs to it (submitit, reading the data, one epoch,
evaluation, the record).

``KD_BENCH_RUNS`` sets another number of runs, for a trial.
"""

import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.perf.measurement import ROOT, emit, say
from harness.hardware import cores
from harness.planning.plan import plan_sweep
from harness.store.store import Store
from slurm.loopback import Loopback, packages

VARIANTS = 10
RUNS = int(os.environ.get("KD_BENCH_RUNS", "2000"))
TASKS = 20  # in each of the two arrays
STALLED_SECONDS = 300.0  # without any run ending: something hangs
COMMANDS = ("sbatch", "squeue", "sacct", "sacctmgr", "scontrol", "scancel", "sinfo")
START = "import torch"
TARGET = 0.7
PROFILE = "{resources: {time_minutes: 30, cpus_per_task: 1, mem_gb: 2}, signal_seconds: 20, poll_seconds: 1}\n"


@dataclass
class Login:
    """A login node that runs commands of the harness and counts their calls of SLURM's commands."""

    folder: Path
    cluster: Loopback

    def __post_init__(self) -> None:
        (self.folder / "bin").mkdir()
        for program in COMMANDS:
            real = shlex.quote(str(shutil.which(program, path=packages.search_path())))
            note = f"echo {program} >> {shlex.quote(str(self.folder / 'calls'))}"
            file = self.folder / "bin" / program
            file.write_text(f'#!/bin/sh\n[ -n "$SLURM_JOB_ID" ] || {note}\nexec {real} "$@"\n')
            file.chmod(0o755)
        (self.folder / "profile.yaml").write_text(PROFILE)

    def harness(self, *args: str) -> tuple[str, dict[str, Any]]:
        """Run a command; return its stdout and its cost on this node: calls, CPU seconds and seconds.

        Raises:
            RuntimeError: it failed.
        """
        calls = self.folder / "calls"
        calls.write_text("")
        path = f"{self.folder / 'bin'}{os.pathsep}{packages.search_path()}"
        env = {**os.environ, **self.cluster.env, "PATH": path, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
        began, before = time.monotonic(), _children_seconds()
        result = subprocess.run(
            [sys.executable, "-m", "harness", *args], cwd=self.folder, env=env, capture_output=True, text=True
        )
        if result.returncode:
            raise RuntimeError(f"harness {' '.join(args)} ended with {result.returncode}:\n{result.stderr[-2000:]}")
        cost = {"cpu_seconds": _children_seconds() - before, "seconds": time.monotonic() - began}
        counted = Counter(calls.read_text().split())
        return result.stdout, {**{k: round(v, 2) for k, v in cost.items()}, "slurm_calls": dict(counted)}

    def job_seconds(self, *jobs: str) -> list[float]:
        """Return the CPU seconds of each task of ended arrays, from SLURM's accounting.

        Raises:
            RuntimeError: a task has not completed.
        """
        used: dict[str, float] = {}
        rows = self.cluster.client("sacct", "--noheader", "--parsable2", "--duplicates", f"--jobs={','.join(jobs)}",
                                   "--format=JobID,State,TotalCPU").splitlines()  # fmt: skip
        for job, state, cpu in (row.split("|") for row in rows):
            task, step, _ = job.partition(".")
            if state != "COMPLETED":
                raise RuntimeError(f"job {job} is {state}")
            used[task] = used.get(task, 0.0) + (_seconds(cpu) if step else 0.0)
        return list(used.values())


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _seconds(text: str) -> float:
    """Parse sacct's [[days-]hours:]minutes:seconds.fraction."""
    days, _, rest = text.rpartition("-")
    total = 0.0
    for part in rest.split(":"):
        total = 60 * total + float(part)
    return total + 86_400 * int(days or 0)


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 2)


def write_sweep(folder: Path, name: str, variants: int, seeds: int) -> Path:
    """Write a sweep file; a single variant is the student without a teacher, which waits for nothing."""
    methods: dict[str, Any] = {f"kd_{i}": {"use": "kd", "params": {"temperature": 1 + i / 10}} for i in range(variants)}
    sweep = {
        "dataset": "digits",
        "recipe": {"base": "digits_quick", "epochs": 1},
        "methods": methods if variants > 1 else {"student": {}},
        "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4"}],
        "seeds": seeds,
    }
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(sweep))
    return file


def run_sweep(login: Login, file: Path) -> dict[str, Any]:
    """Submit a sweep, ask for its status once, wait for its end and make its table; return the costs.

    Raises:
        RuntimeError: a run was lost, doubled, or hangs.
    """
    plan = plan_sweep(file, login.folder / file.stem)
    store, run_ids = plan.store, set(plan.plan.runs)
    args = (file.name, "--results", file.stem)
    _, submit = login.harness("sweep", *args, "--cluster", "profile.yaml", "--detach")
    began = last = time.monotonic()
    previous, status = 0, None
    while (ended := len(store.done_ids() | store.failed_ids())) < len(run_ids):
        if status is None and ended >= len(run_ids) / 2:
            text, status = login.harness("status", *args, "--json")
            states = Counter(row["state"] for row in json.loads(text))
            say(f"  {file.stem}: {dict(states)}")
        last = time.monotonic() if ended > previous else last
        previous = ended
        if time.monotonic() - last > STALLED_SECONDS:
            raise RuntimeError(f"no run has ended for {STALLED_SECONDS:.0f} s; {ended} of {len(run_ids)} have")
        time.sleep(1)
    seconds = time.monotonic() - began
    _, table = login.harness("sweep", *args, "--cluster", "profile.yaml")
    _check(login, store, run_ids)
    return {"seconds": round(seconds, 1), "submit": submit, "status": status, "table": table}


def _check(login: Login, store: Store, run_ids: set[str]) -> None:
    if failed := store.failed_ids():
        raise RuntimeError(f"{len(failed)} runs failed, among them {store.failure(sorted(failed)[0])}")
    files = sorted(p.name for p in store.records.iterdir())
    if files != sorted(f"{k}.parquet" for k in run_ids):
        raise RuntimeError(f"{len(run_ids)} runs have {len(files)} records")
    if doubled := [k for k in run_ids if len(store.attempts(k)) != 1]:
        raise RuntimeError(f"{len(doubled)} runs were not started once, among them {doubled[0]}")
    end = time.monotonic() + 60
    while jobs := login.cluster.client("squeue", "--noheader", "--format=%i %T").split("\n")[:-1]:
        if time.monotonic() > end:
            raise RuntimeError(f"every run has its record, but there are still jobs: {jobs}")
        time.sleep(1)


def jobs_of(store: Store) -> list[str]:
    """Return the ids of the arrays that were submitted for a store."""
    return [json.loads(p.read_text())["job_id"] for p in sorted(store.submissions.glob("*.json"))]


def run_python_starts(login: Login, tasks: int) -> str:
    """Run an array of tasks that only start Python; return its job id."""
    command = f"env PYTHONPATH={shlex.quote(str(ROOT))} {shlex.quote(sys.executable)} -c {shlex.quote(START)}"
    script = f"srun {command}"  # as submitit starts its own
    return login.cluster.client(
        "sbatch", "--parsable", "--wait", f"--array=0-{tasks - 1}", "--cpus-per-task=1", "--mem=2000M",
        "--output=/dev/null", f"--wrap={script}", seconds=1200,
    ).split(";")[0].strip()  # fmt: skip


def cost_of_a_job(login: Login, tasks: int) -> tuple[float, float]:
    """Return the mean CPU seconds of tasks that only import torch, and of the harness's tasks of one run."""
    say(f"  {tasks} jobs of one run each on SLURM, and as many that only import torch")
    first = run_python_starts(login, tasks // 2)
    run_sweep(login, write_sweep(login.folder, "single", 1, tasks))
    second = run_python_starts(login, tasks - tasks // 2)
    time.sleep(5)  # the accounting lags
    ours = login.job_seconds(*jobs_of(Store(login.folder / "single")))
    return _mean(login.job_seconds(first, second)), _mean(ours)


def measure(login: Login) -> None:
    starts, ours = cost_of_a_job(login, TASKS)
    many = write_sweep(login.folder, "many", VARIANTS, RUNS // VARIANTS)
    say(f"  {RUNS} runs in {RUNS // VARIANTS} array tasks")
    sweep = run_sweep(login, many)
    time.sleep(5)  # the accounting lags
    packs = login.job_seconds(*jobs_of(Store(login.folder / "many")))
    calls = sum(sum(part["slurm_calls"].values()) for part in (sweep["submit"], sweep["status"], sweep["table"]))
    detail = {
        "runs": len(Store(login.folder / "many").done_ids()),
        "array_tasks": len(packs),
        "runs_per_task": VARIANTS,
        "lost_doubled_hanging": 0,
        "slurm_calls_per_1000_runs": round(1000 * calls / RUNS, 2),
        **sweep,
        "cpu_seconds_per_task_of_10_runs": _mean(packs),
        "cpu_seconds_per_task": {"import torch": starts, "harness, one run": ours},
        "overhead_cpu_seconds_per_job": round(ours - starts, 2),
    }
    emit("slurm_scale", starts / ours, TARGET, detail)


def on_slurm(bench: str, measure: Callable[[Login], None]) -> None:
    """Run a measurement on a SLURM cluster that is started for it, where SLURM is installed."""
    if packages.missing():
        say(f"{bench}: skipped, SLURM is not installed ({', '.join(packages.missing())}); {packages.APT}")
        return
    base = Path(tempfile.mkdtemp(prefix="kd-"))  # short, because unix sockets need it
    try:
        # As many CPUs as there are: with more, jobs would wait for each other.
        timers = {"MessageTimeout": "30", "SlurmdTimeout": "60"}
        with Loopback.up(base / "c", nodes=max(1, cores() // 2), cpus=min(2, cores()), extra=timers) as cluster:
            (base / "login").mkdir()
            measure(Login(base / "login", cluster))
    finally:
        shutil.rmtree(base, ignore_errors=True)


def main() -> None:
    on_slurm("slurm_scale", measure)


if __name__ == "__main__":
    main()

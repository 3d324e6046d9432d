"""Benches of starts: of commands that need no torch, of a job on this machine, and of a job on SLURM.

The first compares the seconds of `import torch` with those of ``--help`` and of ``--plan``. The others compare CPU
seconds: of a process that only imports torch, over those of a job that trains one run of one epoch on digits. A local
job's include its share of the fork server's own.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.perf import slurm_scale
from benchmarks.perf.measurement import ROOT, emit, in_turn, run_python, say
from harness.planning.plan import plan_sweep
from slurm.fork_server import ForkServer

PAIRS = 5
SECONDS = 0.5  # the limit for each of ours
JOBS = 10
LOCAL_TARGET = 0.9


def commands() -> None:
    with tempfile.TemporaryDirectory() as folder:
        plan = ("sweep", str(ROOT / "benchmarks" / "digits_pairs.yaml"), "--plan", "--results", str(Path(folder) / "r"))
        starts = {
            "--help": ("-m", "harness", "--help"),
            "--plan": ("-m", "harness", *plan),
            "import torch": ("-c", "import torch"),
        }

        def timed(args: tuple[str, ...]) -> Callable[[], float]:
            def run() -> float:
                began = time.perf_counter()
                run_python(*args)
                return time.perf_counter() - began

            return run

        sides = {name: timed(args) for name, args in starts.items()}
        for side in sides.values():
            side()  # files into the page cache
        seconds = in_turn(sides, PAIRS)
    pairs = zip(seconds["import torch"], seconds["--help"], seconds["--plan"], strict=True)
    ratio = statistics.median(torch / max(ours) for torch, *ours in pairs)
    detail = {
        "seconds": {name: {"median": round(statistics.median(s), 3), "min": round(min(s), 3)} for name, s in
                    seconds.items()},
        "target_seconds": SECONDS,
        "pairs": PAIRS,
    }  # fmt: skip
    emit("startup", ratio, 3.0, detail)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of the processes that some work starts and waits for."""

    def spent() -> float:
        times = os.times()
        return times.children_user + times.children_system

    before = spent()
    work()
    return spent() - before


def local_jobs() -> None:
    """Run jobs of one run each, one after the other, through a fork server."""
    with tempfile.TemporaryDirectory() as folder:
        planned = plan_sweep(slurm_scale.write_sweep(Path(folder), "single", 1, JOBS), Path(folder) / "results")
        for run_id, run in planned.plan.runs.items():
            planned.store.write_science(run_id, run.science)
        server = ForkServer()
        for run_id in planned.plan.runs:
            log = Path(folder) / f"{run_id}.log"
            order = {"store": str(planned.store.root), "run_ids": [run_id], "data": None, "weights": {}, "threads": 1}
            server.start(log, order, None)
            while not server.has_ended(log):
                time.sleep(0.05)
        server.close()
        if len(planned.store.done_ids()) < JOBS:
            raise RuntimeError(log.read_text())


def local() -> None:
    say(f"  {JOBS} jobs of one run each on this machine, and as many processes that only import torch")
    imports = [cpu_seconds(lambda: run_python("-c", "import torch")) for _ in range(JOBS // 2)]
    jobs = cpu_seconds(local_jobs) / JOBS
    imports += [cpu_seconds(lambda: run_python("-c", "import torch")) for _ in range(JOBS // 2)]
    seconds = {"import torch": round(statistics.mean(imports), 2), "harness, one run": round(jobs, 2)}
    emit("startup_local_job", statistics.mean(imports) / jobs, LOCAL_TARGET, {"cpu_seconds": seconds, "jobs": JOBS})


def slurm(login: slurm_scale.Login) -> None:
    starts, ours = slurm_scale.cost_of_a_job(login, JOBS)
    detail = {"cpu_seconds": {"import torch": starts, "harness, one run": ours}, "jobs": JOBS}
    emit("startup_slurm_job", starts / ours, slurm_scale.TARGET, detail)


def main() -> None:
    commands()
    local()
    slurm_scale.on_slurm("startup_slurm_job", slurm)


if __name__ == "__main__":
    main()

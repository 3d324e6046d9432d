"""Train many runs in two processes each, let their interpreters end, and count the exit codes.

    python -m tests.support.clean_ends ENGINE RUNS [LOAD]

ENGINE is native or deepspeed; LOAD processes keep the cores busy meanwhile. The exit code is 1 unless every process
ended with 0 and every run is recorded. A job on a cluster ends sooner, without its interpreter's end.
"""

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from slurm import entry
from tests.support.bench import SELDOM, SWEEP, Bench
from tests.support.busy_loops import busy_loops
from tests.support.rendezvous import new_rendezvous


def start_rank(bench: Bench, run_id: str, rank: int, meeting: dict[str, str], engine: str) -> int:
    """Fork a process that trains its part of a run and ends as any Python process does; return its process id."""
    if pid := os.fork():
        return pid
    log = os.open(bench.folder / f"{run_id}-{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", **meeting}
    from harness.training.job import run_job
    from harness.training.job_order import JobOrder

    signals = entry.note_signals()
    order = JobOrder(str(bench.store.root.resolve()), (run_id,), None, {}, 1, engine, int(engine == "deepspeed"))
    run_job(order, lambda: bool(signals))
    sys.exit()


def main(engine: str, runs: int, load: int) -> bool:
    """Train the runs one after the other; return whether all ended well."""
    import tests.support.job_server  # noqa: F401  # what the processes need is imported before they are forked

    os.environ |= {"KD_CHECKPOINT_SECONDS": str(SELDOM), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    quick: dict[str, Any] = {"dataset": {"name": "digits", "train_subset": 100}, "methods": {"student": {}}}
    quick["recipe"] = {"base": "digits_quick", "epochs": 1}
    bench = Bench(Path(tempfile.mkdtemp()), {**SWEEP, **quick, "seeds": list(range(runs))})
    planned = bench.plan().plan.runs
    codes: Counter[int] = Counter()
    with busy_loops(load):
        for n, run_id in enumerate(planned):
            bench.store.write_science(run_id, planned[run_id].science)
            meeting = new_rendezvous(bench.folder)
            for pid in [start_rank(bench, run_id, rank, meeting, engine) for rank in range(2)]:
                codes[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])] += 1
            print(f"\r{n + 1} of {runs} runs, exit codes {dict(codes)}", end="", flush=True)
    recorded = len(bench.store.done_ids())
    print(f"\n{engine}: {recorded} of {runs} runs recorded, logs in {bench.folder}, load {os.getloadavg()[0]:.1f}")
    return codes == {0: 2 * runs} and recorded == runs


if __name__ == "__main__":
    name, number, *rest = sys.argv[1:]
    sys.exit(not main(name, int(number), int(rest[0]) if rest else 0))

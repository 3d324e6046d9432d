"""Bench of running a finished sweep of 10,000 runs again: `harness sweep FILE`, with start-up.

The first call reads every record file and compacts them, as the end of any sweep does. The ratio is for later calls.
"""

import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.perf.large_sweep import finish, write_sweep
from benchmarks.perf.measurement import emit, run_python, say

SECONDS, REPEATS = 3.0, 5


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        file = write_sweep(Path(name))
        say("  writing 10,000 records")
        planned = finish(file, Path(name) / "results")

        def rerun() -> float:
            began = time.perf_counter()
            text = run_python("-m", "harness", "sweep", str(file), "--results", f"{name}/results")
            took = time.perf_counter() - began
            assert "resnet110 > vgg8" in text
            say(f"  {took:.2f} s")
            return took

        first, later = rerun(), [rerun() for _ in range(REPEATS)]
        runs = len(planned.plan.runs)
    seconds = statistics.median(later)
    detail = {
        "runs": runs,
        "seconds": round(seconds, 3),
        "seconds_min": round(min(later), 3),
        "seconds_first_call": round(first, 3),
        "limit_seconds": SECONDS,
    }
    emit("rerun_10k", SECONDS / seconds, 1.0, detail)


if __name__ == "__main__":
    main()

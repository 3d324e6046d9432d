"""Bench of planning 10,000 runs on an empty store: `harness sweep FILE --plan`, with start-up."""

import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.perf.large_sweep import write_sweep
from benchmarks.perf.measurement import emit, run_python, say

SECONDS, REPEATS = 2.0, 5


def main() -> None:
    took = []
    with tempfile.TemporaryDirectory() as name:
        file = write_sweep(Path(name))
        for _ in range(REPEATS):
            began = time.perf_counter()
            text = run_python("-m", "harness", "sweep", str(file), "--plan", "--json", "--results", f"{name}/results")
            took.append(time.perf_counter() - began)
            say(f"  {took[-1]:.2f} s")
    runs = json.loads(text)["runs"]
    assert runs >= 10_000, runs
    seconds = statistics.median(took)
    detail = {"runs": runs, "seconds": round(seconds, 3), "seconds_min": round(min(took), 3), "limit_seconds": SECONDS}
    emit("plan_10k", SECONDS / seconds, 1.0, detail)


if __name__ == "__main__":
    main()

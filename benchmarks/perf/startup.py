"""Bench of the start-up of commands that need no torch, against `import torch`."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.perf.measurement import ROOT, emit, in_turn, run_python

PAIRS = 5
SECONDS = 0.5  # the limit for each of ours


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        plan = ("sweep", str(ROOT / "benchmarks" / "digits_pairs.yaml"), "--plan", "--results", str(Path(folder) / "r"))
        commands = {
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

        sides = {name: timed(args) for name, args in commands.items()}
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


if __name__ == "__main__":
    main()

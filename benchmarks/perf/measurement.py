"""The measurement of benches: pairs in turn, and the one line of JSON that `make bench` promises."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from harness.hardware import cores, cpu_name
from harness.store import provenance

ROOT = Path(__file__).resolve().parents[2]


def say(text: str) -> None:
    """Print progress on stderr; stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


def emit(
    bench: str, ratio: float, target: float, detail: dict[str, Any], better: Literal["higher", "lower"] = "higher"
) -> None:
    """Print the result line."""
    commit, dirty = provenance.git_state()
    machine = {
        "commit": commit[:12] + ("+changes" if dirty else ""),
        "cpu": cpu_name(),
        "cores": cores(),
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 2),
    }
    line = {"bench": bench, "ratio": round(ratio, 3), "target": target, "better": better}
    print(json.dumps({**line, "detail": {**detail, **machine}}), flush=True)


def in_turn(
    sides: dict[str, Callable[[], float]], pairs: int, budget_s: float = 60.0, progress: bool = True
) -> dict[str, list[float]]:
    """Measure the sides in turn, A B, B A, A B, ...: what slows the machine for a while slows both.

    Returns the seconds by side, of at most `pairs` pairs; fewer, but at least three, if they take longer than
    `budget_s`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    began = time.monotonic()
    for i in range(pairs):
        if i >= 3 and time.monotonic() - began > budget_s:
            break
        names = list(sides) if i % 2 == 0 else list(reversed(sides))
        for name in names:
            seconds[name].append(sides[name]())
        if progress:
            say(f"  {i + 1}/{pairs}: " + ", ".join(f"{name} {seconds[name][-1]:.3g} s" for name in sides))
    return seconds


def ratio_of_pairs(slow: Sequence[float], fast: Sequence[float]) -> tuple[float, dict[str, Any]]:
    """Return the least of `slow` over the least of `fast`, and the spread of the pairs.

    Other processes only make a measurement longer, so the least one is nearest to that of an idle machine. The result
    is not `steady` if the median of the pairs is far from the ratio: the machine was too busy.
    """
    ratios = [s / f for s, f in zip(slow, fast, strict=True)]
    spread = {
        "steady": abs(statistics.median(ratios) * min(fast) / min(slow) - 1) < 0.1,
        "median_of_pairs": round(statistics.median(ratios), 3),
        "least_of_pairs": round(min(ratios), 3),
        "greatest_of_pairs": round(max(ratios), 3),
        "pairs": len(ratios),
    }
    return min(slow) / min(fast), spread


class ChildProcess:
    """A process that prints a first line when it is ready, and the seconds of its side for every line it reads."""

    def __init__(self, *args: str, tree: Path = ROOT, variables: dict[str, str] | None = None):
        """Start this interpreter with ``args``, the code of a working tree and further environment variables."""
        environment = os.environ | {"PYTHONPATH": str(tree)} | (variables or {})
        self._name = " ".join(args)
        self._process = subprocess.Popen(
            [sys.executable, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=tree,
            env=environment,
            text=True,
            bufsize=1,
        )
        self.first_line = self._read_line()

    def __call__(self, line: str = "") -> float:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        return float(self._read_line())

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _read_line(self) -> str:
        assert self._process.stdout
        if not (line := self._process.stdout.readline()):
            raise SystemExit(f"python {self._name} ended early")
        return line


def run_python(*args: str, cwd: Path | None = None) -> str:
    """Run this interpreter with `args` and return its stdout; an error shows its stderr."""
    result = subprocess.run([sys.executable, *args], cwd=cwd or ROOT, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"python {' '.join(args)} ended with {result.returncode}:\n{result.stderr[-2000:]}")
    return result.stdout

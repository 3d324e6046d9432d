"""The program: its stages in order of value, each in a process of its own with a budget of time."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from benchmarks.gpu import card, gpu_tests, large_images, published_row, throughput
from benchmarks.gpu.findings import Findings
from benchmarks.gpu.history import Figures
from benchmarks.gpu.stage_order import StageOrder
from benchmarks.gpu.summary import summary
from harness.console.terminal import say
from harness.store import files

ROOT = Path(__file__).resolve().parents[2]
END_SECONDS = 8.0  # for the summary
GRACE_SECONDS = 4.0  # for a stage to end by itself after its time
SAVE_SECONDS = 10.0  # for a stage that is told to end, to save what it has
LEAST_SECONDS = 10.0  # with less left, a stage is not started
LARGEST_LOG = 8_000_000  # bytes
NOTE_SECONDS = 15.0  # between two lines about a stage that is running


@dataclass(frozen=True)
class Stage:
    """A stage: a module that is run with a StageOrder."""

    name: str
    module: str
    seconds: float | None  # its budget; None: all that the stages after it leave
    is_whole: Callable[[Findings], bool] = lambda findings: True  # whether it has left nothing to do for a later call


def _row_is_done(findings: Findings) -> bool:
    trained = findings.of_stage(published_row.NAME, "trained")
    return bool(trained) and trained[-1]["done"] == trained[-1]["runs"]


def _all_is_measured(findings: Findings) -> bool:
    plans = findings.of_stage(throughput.NAME, "plan")
    return bool(plans) and not plans[-1]["left_out"]


STAGES = (
    Stage(card.NAME, "card", 20),
    Stage(gpu_tests.NAME, "gpu_tests", 90),
    Stage(throughput.NAME, "throughput", 120, _all_is_measured),
    Stage(published_row.NAME, "published_row", None, _row_is_done),
    Stage(large_images.NAME, "large_images", 60),
)


def run_program(order: StageOrder, resumed: bool) -> int:
    """Run every stage that has not been finished; print the summary; return the exit code.

    0: every stage that was run ended by itself and no test failed. 1: otherwise.
    """
    findings, failed = order.findings, []
    if not resumed:
        shutil.rmtree(order.work / "store", ignore_errors=True)  # of an earlier program in a folder of this name
    order.work.mkdir(parents=True, exist_ok=True)
    with (order.out / "log.txt").open("a") as log:
        for i, stage in enumerate(STAGES):
            if stage.name != card.NAME and findings.is_finished(stage.name):
                say(f"{stage.name}: finished in an earlier call")
                continue
            seconds = _budget(stage, order, STAGES[i + 1 :], findings)
            if seconds < (0 if order.smoke else LEAST_SECONDS):
                findings.add(stage.name, kind="end", finished=False, why="no time was left")
                continue
            say(f"{stage.name}: at most {seconds:.0f} s")
            code = _run(stage, replace(order, until=time.time() + seconds), log)
            if stage.name == card.NAME:
                _forget_other_card(findings)
            finished = code == 0 and stage.is_whole(findings)
            why = "" if finished else f"ended with {code}: see log.txt" if code else "it has more to do"
            findings.add(stage.name, kind="end", finished=finished, why=why)
            if code:
                failed.append(stage.name)
            _write(order)
    _shorten_log(order.out / "log.txt")
    for line in _write(order):
        print(line)
    suite = findings.of_stage(gpu_tests.NAME, "suite")
    return 1 if failed or any(f["exit_code"] not in (0, 5) for f in suite[-1:]) else 0


def _budget(stage: Stage, order: StageOrder, later: tuple[Stage, ...], findings: Findings) -> float:
    """Return the seconds that a stage may take."""
    left = order.seconds_left - END_SECONDS - GRACE_SECONDS
    if stage.seconds is not None:
        return min(stage.seconds, left)
    return left - sum(s.seconds or 0 for s in later if not findings.is_finished(s.name))


def _run(stage: Stage, order: StageOrder, log: IO[str]) -> int:
    """Run a stage; end it with all its processes if it does not end by itself. Return its exit code."""
    log.write(f"== {stage.name}\n")
    log.flush()
    command = [sys.executable, "-u", "-m", f"benchmarks.gpu.{stage.module}", order.to_argument()]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
    )
    noted = time.time()
    try:
        while process.poll() is None and order.seconds_left > -GRACE_SECONDS:
            time.sleep(0.05)
            if time.time() - noted > NOTE_SECONDS:
                noted = time.time()
                say(f"  {order.seconds_left:.0f} s left; {files.tail(order.out / 'log.txt', 1).strip()[:120]}")
    finally:
        _end(process)
    return process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a stage and all that it has started to end, and kill what is left of them after some seconds."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SAVE_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _forget_other_card(findings: Findings) -> None:
    """Leave out what was measured on another card or with another torch in an earlier call, except for training."""
    machines = findings.of_stage(card.NAME, "machine")
    now = machines[-1:]
    if all((f["card"], f["torch"]) == (now[0]["card"], now[0]["torch"]) for f in machines):
        return
    say("findings of another card or torch are left out")
    since = now[0]["at"]
    kept = [f for f in findings.read() if f["at"] >= since or f["stage"] == published_row.NAME]
    findings.path.unlink()
    for finding in kept:
        findings.add(**finding)


def _write(order: StageOrder) -> list[str]:
    """Write the figures and the summary so far; return the summary."""
    if figures := Figures.of(order.findings):
        figures.write(order.out / "figures.json")
    return summary(order.findings)


def _shorten_log(path: Path) -> None:
    if path.stat().st_size > LARGEST_LOG:
        content = path.read_bytes()
        half = LARGEST_LOG // 2
        path.write_bytes(content[:half] + b"\n... left out ...\n" + content[-half:])

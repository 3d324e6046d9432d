"""The program: its stages in order of value, each in a process of its own with a budget of time."""

import contextlib
import fcntl
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

from benchmarks.gpu import card, coco_steps, gpu_tests, imagenet_steps, published_row, throughput
from benchmarks.gpu.findings import Findings
from benchmarks.gpu.history import Figures
from benchmarks.gpu.stage_order import StageOrder
from benchmarks.gpu.summary import summary
from harness.console.terminal import say
from harness.errors import UserError
from harness.store import files

ROOT = Path(__file__).resolve().parents[2]
GRACE_SECONDS = 3.0  # for a stage to end by itself after its time
SAVE_SECONDS = 10.0  # for a stage that is told to end, to save what it has
RESERVED_SECONDS = GRACE_SECONDS + SAVE_SECONDS + 4.0  # with the summary
LEAST_SECONDS = 12.0  # with less left, a stage is not started
MOST_STARTS = 3  # of a stage whose process ends with an error
LARGEST_LOG = 2_000_000  # bytes
NOTE_SECONDS = 15.0  # between two lines about a stage that is running


@dataclass(frozen=True)
class Stage:
    """A stage: a module that is run with a StageOrder."""

    name: str
    module: str
    seconds: float | None  # its budget; None: all that the stages after it leave
    least: float = LEAST_SECONDS  # seconds without which it is not started
    lacks: Callable[[StageOrder], str] = lambda order: ""  # what it needs and does not have
    has_more: Callable[[Findings], str] = lambda findings: ""  # why a later call has something left to do


def _row_has_more(findings: Findings) -> str:
    trained = findings.of_stage(published_row.NAME, "trained")
    is_done = bool(trained) and trained[-1]["done"] == trained[-1]["runs"]
    waits = findings.of_stage(published_row.NAME, "waits")
    return "" if is_done else waits[-1]["why"] if waits and not trained else "some runs are not done"


def _throughput_has_more(findings: Findings) -> str:
    plans = findings.of_stage(throughput.NAME, "plan")
    if not plans or plans[-1]["left_out"]:
        return f"{len(plans[-1]['left_out']) if plans else 'all'} measurements were left out"
    measured = {f["what"] for f in findings.of_stage(throughput.NAME, "measured")}
    failed = {f["what"] for f in findings.of_stage(throughput.NAME, "not measured")} - measured
    return f"{len(failed)} measurements failed" if failed else ""


STAGES = (
    Stage(card.NAME, "card", 20),
    Stage(gpu_tests.NAME, "gpu_tests", 90),
    Stage(throughput.NAME, "throughput", 120, has_more=_throughput_has_more),
    Stage(
        published_row.NAME, "published_row", None, published_row.LEAST_SECONDS, published_row.lacks, _row_has_more
    ),
    Stage(imagenet_steps.NAME, "imagenet_steps", 30),
    Stage(coco_steps.NAME, "coco_steps", 40, lacks=coco_steps.lacks),
)  # fmt: skip


class Program:
    """One call of the program.

    Raises:
        UserError: another call is using the output folder.
    """

    def __init__(self, order: StageOrder, resumed: bool) -> None:
        self.order, self.findings = order, order.findings
        self.failed: list[str] = []  # stages, in this call
        self._log: IO[str] = (order.out / "log.txt").open("a")
        try:  # its stages inherit the lock, and so keep it when this process is killed
            fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"--out {order.out}: another call of this program is using it") from None
        if not resumed:
            shutil.rmtree(order.work / "store", ignore_errors=True)  # of an earlier program in a folder of this name
        order.work.mkdir(parents=True, exist_ok=True)

    def run(self) -> int:
        """Run every stage that has something to do, once more if something and time are left; print the summary.

        Return 0 if every stage that ran ended by itself and no test or measurement failed, else 1.
        """
        try:
            for i, stage in enumerate(STAGES):
                self._run_stage(stage, self._budget(stage, STAGES[i + 1 :]))
            for stage in STAGES:
                if self.findings.of_stage(stage.name, "end")[-1].get("goes_on"):
                    self._run_stage(stage, self._left())
        finally:
            self._shorten_log()
            for line in self._write():
                print(line, flush=True)
        suite = self.findings.of_stage(gpu_tests.NAME, "suite")
        tests_failed = any(f["exit_code"] not in (0, 5) for f in suite[-1:])
        return 1 if self.failed or tests_failed else 0

    def _left(self) -> float:
        return self.order.seconds_left - RESERVED_SECONDS

    def _budget(self, stage: Stage, later: tuple[Stage, ...]) -> float:
        """Return the seconds that a stage may take."""
        left = self._left()
        if stage.seconds is not None:
            return min(stage.seconds, left)
        rest = sum(s.seconds or 0 for s in later if not self.findings.is_finished(s.name) and not s.lacks(self.order))
        return left - rest if left - rest > 2 * stage.least else left  # it is worth more than the later ones

    def _run_stage(self, stage: Stage, seconds: float) -> None:
        """Run a stage unless an earlier call has finished it; start it again if it ends with an error."""
        if stage.name != card.NAME and self.findings.is_finished(stage.name):
            say(f"{stage.name}: finished in an earlier call")
            return
        if why := stage.lacks(self.order):
            self._end(stage, why)
            return
        until = time.time() + seconds
        for _ in range(MOST_STARTS):
            if (left := until - time.time()) < (0 if self.order.smoke else stage.least):
                self._end(stage, "no time was left", goes_on=True)
                return
            say(f"{stage.name}: at most {left:.0f} s")
            code = self._run(stage, replace(self.order, until=until))
            self._shorten_log()
            if code == 0 or time.time() >= until:
                break
        if code and time.time() >= until:
            self._end(stage, "it was ended when its time was over")
        elif code:
            self.failed.append(stage.name)
            self._end(stage, f"ended with {code}: see log.txt")
        else:
            more = stage.has_more(self.findings)
            if "failed" in more:
                self.failed.append(stage.name)
            self._end(stage, more, goes_on=bool(more))

    def _end(self, stage: Stage, why: str, goes_on: bool = False) -> None:
        self.findings.add(stage.name, "end", finished=not why, why=why, goes_on=goes_on)
        self._write()

    def _run(self, stage: Stage, order: StageOrder) -> int:
        """Run a stage; end it with all its processes if it does not end by itself. Return its exit code."""
        self._log.write(f"== {stage.name}\n")
        self._log.flush()
        command = [sys.executable, "-u", "-m", f"benchmarks.gpu.{stage.module}", order.to_argument()]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, cwd=ROOT, start_new_session=True
        )
        noted = time.time()
        try:
            while process.poll() is None and order.seconds_left > -GRACE_SECONDS:
                time.sleep(0.05)
                if time.time() - noted > NOTE_SECONDS:
                    noted = time.time()
                    say(f"  {order.seconds_left:.0f} s left; {files.tail(order.out / 'log.txt', 1).strip()[:120]}")
        except BaseException:
            self.findings.add(stage.name, "end", finished=False, why="the program was told to end", goes_on=True)
            raise
        finally:
            end_group(process)
        return process.returncode

    def _write(self) -> list[str]:
        """Write the figures and return the summary so far."""
        if figures := Figures.of(self.findings):
            figures.write(self.order.out / "figures.json")
        return summary(self.findings)

    def _shorten_log(self) -> None:
        path = self.order.out / "log.txt"
        if path.stat().st_size > LARGEST_LOG:
            content = path.read_bytes()
            half = LARGEST_LOG // 2
            path.write_bytes(content[:half] + b"\n... left out ...\n" + content[-half:])


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process and all that it has started to end, and kill what is left of them after some seconds."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SAVE_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for number, handler in handlers.items():
        signal.signal(number, handler)

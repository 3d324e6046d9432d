"""The seconds of a step's parts, on a CPU and, with stand-ins for CUDA's events, on a GPU."""

import signal
import subprocess
import sys
import time
from typing import ClassVar

import pytest
import torch

from harness.training import suspension
from harness.training.stopwatch import SharedStopwatch, SharedTime, Stopwatch


class Event:
    """A stand-in for ``torch.cuda.Event``: each is recorded 250 ms after the one before."""

    recorded: ClassVar[int] = 0

    def __init__(self, enable_timing: bool):
        assert enable_timing

    def record(self) -> None:
        Event.recorded += 1
        self.at = 250.0 * Event.recorded

    def elapsed_time(self, end: "Event") -> float:
        return end.at - self.at


def test_a_gpus_parts_are_read_from_events_and_captured_ones_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    captured = [False]
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: captured[0])
    watch = Stopwatch(torch.device("cuda"))
    for part in ("teacher", "student", "student"):
        with watch.part(part):
            pass
    with watch.part("data"), watch.part("waiting", within="data"):
        pass
    captured[0] = True
    with watch.part("student"):
        pass
    assert watch.take() == {"teacher": 0.25, "student": 0.5, "data": 0.5, "waiting": 0.25} and watch.take() == {}


def test_parts_on_a_cpu_add_up() -> None:
    watch = Stopwatch(torch.device("cpu"))
    for part in ("data", "student", "data"):
        with watch.part(part):
            time.sleep(0.01)
    taken = watch.take()
    assert taken["data"] >= 0.02 and taken["student"] >= 0.01 and watch.take() == {}


def test_a_part_within_another_is_counted_once() -> None:
    watch = Stopwatch(torch.device("cpu"))
    with watch.part("data"):
        time.sleep(0.01)
        with watch.part("waiting", within="data"):
            time.sleep(0.1)
    began = time.perf_counter()
    with watch.part("waiting", within="data"):
        pass
    taken, since = watch.take(), time.perf_counter() - began
    assert taken["waiting"] >= 0.1 and 0.01 - since <= taken["data"] < taken["waiting"]


def test_the_time_of_packs_in_turn_is_divided_among_those_in_training() -> None:
    now = 0.0
    shared = SharedTime(lambda: now)
    shared.join(1)
    now = 2.0
    shared.join(2)
    now = 6.0
    assert shared.take(1) == 2.0 + 4.0 / 2
    now = 8.0
    shared.leave(1)
    now = 9.0
    assert (shared.take(1), shared.take(2)) == (2.0 / 2, 4.0 / 2 + 2.0 / 2 + 1.0)
    assert (shared.take(1), shared.take(2)) == (0.0, 0.0)


def test_overlapping_packs_count_no_second_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each measures the whole time, of which it gets its share; what it measures below its share is exact."""
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    shared = SharedTime(lambda: now)
    for seed in (1, 2):
        shared.join(seed)
    now = 5.0
    watches = [SharedStopwatch(torch.device("cpu"), shared, seed) for seed in (1, 2)]
    with watches[0].part("data"), watches[1].part("members"):
        now = 9.0
    with watches[1].part("data"):
        now = 10.0
    one, two = (watch.take() for watch in watches)
    assert one == {"data": pytest.approx(2.5)}
    assert two == {"members": pytest.approx(2.0), "data": pytest.approx(0.5)}
    with watches[0].part("data"):
        now = 11.0
    now = 20.0
    assert watches[0].take() == {"data": pytest.approx(1.0)}


def test_suspended_time_is_not_of_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where the suspension is known only in a later, shorter part."""
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    watch = Stopwatch(torch.device("cpu"))
    with watch.part("data"):
        now = 100.0
        monkeypatch.setattr(suspension, "_seconds", 90.0)
    with watch.part("student"):
        now = 205.0
    with watch.part("data"):
        now = 206.0
        monkeypatch.setattr(suspension, "_seconds", 190.0)
    assert watch.take() == {"data": 0.0, "student": pytest.approx(16.0)} and watch.take() == {}


def test_a_stopped_process_knows_for_how_long_it_was_suspended() -> None:
    """A process that has only got a SIGCONT, as SLURM sends one before SIGTERM, was not suspended."""
    program = (
        "import sys; from harness.training import suspension as s; s.watch_suspensions()\n"
        "for line in sys.stdin: import time; time.sleep(0.1); print(s.suspended_seconds(), flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], text=True, stdin=-1, stdout=-1)
    assert process.stdin and process.stdout

    def seconds() -> float:
        assert process.stdin and process.stdout
        process.stdin.write("\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    assert seconds() == 0
    process.send_signal(signal.SIGCONT)
    assert seconds() == 0
    began = time.monotonic()
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    process.send_signal(signal.SIGCONT)
    stopped = time.monotonic() - began
    assert seconds() == pytest.approx(stopped, abs=suspension.TICK)
    process.communicate()

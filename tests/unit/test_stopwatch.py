"""The seconds of a step's parts, on a CPU and, with stand-ins for CUDA's events, on a GPU."""

import time
from typing import ClassVar

import pytest
import torch

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
    captured[0] = True
    with watch.part("student"):
        pass
    assert watch.take() == {"teacher": 0.25, "student": 0.5} and watch.take() == {}


def test_parts_on_a_cpu_add_up() -> None:
    watch = Stopwatch(torch.device("cpu"))
    for part in ("data", "student", "data"):
        with watch.part(part):
            time.sleep(0.01)
    taken = watch.take()
    assert taken["data"] >= 0.02 and taken["student"] >= 0.01 and watch.take() == {}


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

"""The seconds of a step's parts, on a CPU and, with stand-ins for CUDA's events, on a GPU."""

import time
from typing import ClassVar

import pytest
import torch

from harness.training.stopwatch import Stopwatch


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

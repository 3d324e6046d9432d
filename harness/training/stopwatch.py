"""A stopwatch for the parts of a step that does not make the device wait for the host."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from harness.training.suspension import suspended_seconds


class Stopwatch:
    """The seconds spent in named parts, without those for which the process was suspended.

    On CUDA, events mark the parts and ``take`` reads them. Parts of work that is being captured as a graph are not
    timed.
    """

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, str | None, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def part(self, name: str, within: str | None = None) -> Iterator[None]:
        """Add the time of the enclosed work to the part ``name``, and take it from the one ``within`` which it is."""
        if self._cuda and torch.cuda.is_current_stream_capturing():
            yield
            return
        suspended_before = suspended_seconds()
        if self._cuda:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            yield
            end.record()
            self._events.append((name, within, start, end))
        else:
            began = time.perf_counter()
            yield
            self._add(time.perf_counter() - began, name, within)
        if suspended := suspended_seconds() - suspended_before:
            self._add(-suspended, name, within)

    def _add(self, seconds: float, name: str, within: str | None) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        if within is not None:
            self._seconds[within] = self._seconds.get(within, 0.0) - seconds

    def take(self) -> dict[str, float]:
        """Return the seconds by part since the last call."""
        if self._events:
            torch.cuda.synchronize()
        for name, within, start, end in self._events:
            self._add(start.elapsed_time(end) / 1000, name, within)
        taken, self._seconds, self._events = self._seconds, {}, []
        # A suspension may be known only after the part in which it was, and then shortens a later one.
        if overdrawn := sum(min(0.0, seconds) for seconds in taken.values()):
            taken[max(taken, key=taken.__getitem__)] += overdrawn
        return {part: max(0.0, seconds) for part, seconds in taken.items()}


class SharedTime:
    """The time of packs that train in turn, divided equally among them, as packs of one pair do the same work."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock, self._divided_until = clock, clock()
        self._shares: dict[int, float] = {}  # seconds by seed
        self._in_training: set[int] = set()

    def join(self, seed: int) -> None:
        """Give the pack of this seed a share from now on."""
        self._divide()
        self._in_training.add(seed)

    def leave(self, seed: int) -> None:
        """Give the pack of this seed no share from now on."""
        self._divide()
        self._in_training.discard(seed)

    def take(self, seed: int) -> float:
        """Return the seconds that have become this pack's since the last call."""
        self._divide()
        return self._shares.pop(seed, 0.0)

    def _divide(self) -> None:
        now = self._clock()
        elapsed, self._divided_until = now - self._divided_until, now
        for seed in self._in_training:
            self._shares[seed] = self._shares.get(seed, 0.0) + elapsed / len(self._in_training)


class SharedStopwatch(Stopwatch):
    """A stopwatch of one of several packs whose work overlaps on a GPU: each is slowed down by the others.

    The parts that it returns add up to no more than the pack's share of the time.
    """

    def __init__(self, device: torch.device, shared: SharedTime, seed: int):
        super().__init__(device)
        self._shared, self._seed = shared, seed
        shared.take(seed)  # what came before is not this stopwatch's

    def take(self) -> dict[str, float]:
        seconds = super().take()
        share, measured = self._shared.take(self._seed), sum(seconds.values())
        scale = min(1.0, share / measured) if measured else 1.0
        return {part: spent * scale for part, spent in seconds.items()}

"""The process that follows a sweep's runs and copies their curves to trackers, while and after they train.

    python -m harness.tracking.follower RESULTS TOOLS [FOLDER OF EVENT FILES]

A line on stdin names runs to follow; at its end, a last round ends the process. It reads the store and writes none of
a run's files, so no training can notice it. Each round, it asks a tool for nothing that it has been told before; after
a restart, it asks the tool what it has.
"""

import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.errors import UserError, one_line
from harness.reporting.export.tensorboard import scalars
from harness.spec.lines import grouped
from harness.spec.science import Science
from harness.store.live_curves import read_epochs
from harness.store.locks import Lock
from harness.store.store import Store
from harness.tracking.tracked_run import FINAL, Key, Point, RunFacts, State, TrackedRun, Tracker

POLL_SECONDS = 1.0
_IN_SETTINGS = ("schema_version", "seed", "epochs")  # numbers of a record that are no results


@dataclass
class _Tool:
    """A tracker at work, with what it has been told."""

    tracker: Tracker
    open: dict[TrackedRun, set[Key]] = field(default_factory=dict)
    ended: dict[TrackedRun, str] = field(default_factory=dict)  # with the state in which each ended

    def show(self, run: TrackedRun, facts: RunFacts) -> None:
        """Tell the tracker what it does not know of a run."""
        if self.ended.get(run) == facts.state:
            return
        if run not in self.open:
            held = self.tracker.begin(run, facts)
            if held is None:
                self.ended[run] = facts.state
                return
            self.open[run] = held
        held = self.open[run]
        if further := [point for point in facts.points if (point.epoch, point.tag) not in held]:
            self.tracker.add(run, further)
            held.update((point.epoch, point.tag) for point in further)
        if facts.has_ended:
            self.tracker.end(run, facts)
            del self.open[run]
            self.ended[run] = facts.state


class Follower:
    """The runs to follow, and the tools that show them."""

    def __init__(self, store: Store):
        self.store = store
        self.tools: dict[str, _Tool] = {}
        self.runs: dict[TrackedRun, None] = {}
        self.given_up: list[str] = []  # the tools that have failed
        self._locks: dict[tuple[str, str], Lock] = {}
        self._facts: dict[TrackedRun, RunFacts] = {}  # as the tools know them; of a finished run without its points
        self._unreadable: set[str] = set()  # finished runs

    def add_tool(self, name: str, make: Callable[[], Tracker]) -> None:
        """Add a tool, unless it cannot be made."""
        try:
            self.tools[name] = _Tool(make())
        except Exception as e:
            self._give_up(name, _cause(e))

    def follow(self, runs: Iterable[TrackedRun]) -> None:
        """Follow further runs."""
        self.runs |= dict.fromkeys(runs)

    def round(self) -> None:
        """Show each tool what is new of the sweeps that no other process shows to it."""
        for name, sweep in self._untaken():
            lock = Lock(self.store.tracking_lock(name, sweep))
            if lock.acquire():
                self._locks[name, sweep] = lock
                self._facts.clear()  # the tool has missed what the others were told
        done, failed = self.store.done_ids(), self.store.failed_ids()
        for run in [run for run in self.runs if run.run_id not in done]:
            if facts := self._in_training(run, run.run_id in failed):
                self._show(run, facts)
        finished = (run for run in self.runs if run.run_id in done - self._unreadable)
        new = grouped((run for run in finished if not self._is_shown(run)), lambda run: run.run_id)
        for row in self._records(new):
            facts = recorded_facts(row)
            for run in new[row["run_id"]]:
                self._show(run, facts)
                self._facts[run] = facts._replace(points=())

    def close(self) -> None:
        """Close the runs that are still in training, which a later process may go on with."""
        for name, sweep in self._untaken():
            self._give_up(name, f"another process tracks {sweep} already")
        for name, tool in list(self.tools.items()):
            try:
                for run in tool.open:
                    tool.tracker.end(run, self._facts[run])
            except Exception as e:
                self._give_up(name, _cause(e))

    def _untaken(self) -> list[tuple[str, str]]:
        """Return the tools and sweeps of which another process may still show one in the other."""
        sweeps = sorted({run.sweep for run in self.runs})
        return [(name, sweep) for name in self.tools for sweep in sweeps if (name, sweep) not in self._locks]

    def _is_shown(self, run: TrackedRun) -> bool:
        return run in self._facts and self._facts[run].state in (State.DONE, State.DIVERGED)

    def _show(self, run: TrackedRun, facts: RunFacts) -> None:
        if facts == self._facts.get(run):
            return
        self._facts[run] = facts
        for name, tool in list(self.tools.items()):
            if (name, run.sweep) not in self._locks:
                continue
            try:
                tool.show(run, facts)
            except Exception as e:
                self._give_up(name, _cause(e))

    def _give_up(self, name: str, cause: str) -> None:
        self.tools.pop(name, None)
        self.given_up.append(name)
        print(f"{name}: {cause}", flush=True)

    def _records(self, run_ids: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Yield runs' records; a damaged one is told once."""
        from harness.store import record_stream

        left = set(run_ids)
        try:
            for rows in record_stream.stream_records(self.store, left):
                yield from (rows.slice(i, 1).to_pylist()[0] for i in range(len(rows)))
        except UserError:  # one of them is damaged: which
            yield from self._readable_records(left)

    def _readable_records(self, run_ids: Iterable[str]) -> Iterator[dict[str, Any]]:
        from harness.store import records

        for run_id in run_ids:
            try:
                yield from records.read_records(self.store, [run_id]).to_pylist()
            except UserError as e:
                self._unreadable.add(run_id)
                print(f"{one_line(str(e))}; left out", flush=True)

    def _in_training(self, run: TrackedRun, has_failed: bool) -> RunFacts | None:
        """Return what is known of a run without a record; None before it has started."""
        epochs = read_epochs(self.store, run.run_id)
        if not (epochs or has_failed or self.store.is_running(run.run_id)):
            return None
        try:
            science = self.store.read_science(run.run_id)
        except (UserError, OSError):
            return None  # it is written anew when the run starts
        ends = {epoch.epoch: epoch.at for epoch in epochs}
        curves = [{"epoch": e.epoch, "name": name, "value": v} for e in epochs for name, v in e.values.items()]
        points = [Point(*point, ends[point[0]]) for point in scalars({"curves": curves, "science": science.text})]
        attempts = self.store.attempts(run.run_id)
        started = attempts[0]["at"] if attempts else min(ends.values(), default=0.0)
        failure = self.store.failure(run.run_id) if has_failed else None
        state = State.FAILED if has_failed else State.RUNNING
        return RunFacts(science, started, tuple(points), state, failure.cause if failure else "")


def recorded_facts(row: Mapping[str, Any]) -> RunFacts:
    """Return what a record tells of a run."""
    ended = row["finished_at"].timestamp()
    points = [Point(*point, ended) for point in scalars(row)]
    points += [Point(row["epochs"], f"{FINAL}{name}", value, ended) for name, value in _numbers(row)]
    science, started = Science.from_text(row["science"]), row["started_at"].timestamp()
    return RunFacts(science, started, tuple(points), State(row["status"]))


def _numbers(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the numbers of a record besides its curves: last and best metrics, costs, sizes."""
    for name, value in row.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in _IN_SETTINGS:
            yield name, float(value)


def _cause(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}")


def main(results: str, tools: str, event_files: str = "") -> int:
    """Follow the runs that stdin names until it ends; return 1 if a tool was given up."""
    store, lines = Store(Path(results)), queue.SimpleQueue[str | None]()
    threading.Thread(target=_read_lines, args=(lines,), daemon=True).start()
    store.tracking.mkdir(parents=True, exist_ok=True)
    follower = Follower(store)
    for name in tools.split(","):
        folder = Path(event_files) if name == "tensorboard" else store.tracking
        follower.add_tool(name, partial(_make, name, folder))
    pause = POLL_SECONDS
    while follower.tools:
        arrived = _arrived(lines, pause)
        began = time.monotonic()
        for line in filter(None, arrived):
            follower.follow(TrackedRun.from_json(run) for run in json.loads(line))
        follower.round()
        if None in arrived:
            break
        pause = max(POLL_SECONDS, 3 * (time.monotonic() - began))  # a slow store is asked less often
    follower.close()
    return 1 if follower.given_up else 0


def _make(name: str, folder: Path) -> Tracker:
    """Return a tool, which imports its library."""
    made: Tracker = import_module(f"harness.tracking.{name}_tracker").make(folder)
    return made


def _arrived(lines: "queue.SimpleQueue[str | None]", seconds: float) -> list[str | None]:
    """Return the lines that have arrived, waiting so long for the first; None is the end."""
    arrived = []
    with suppress(queue.Empty):
        arrived.append(lines.get(timeout=seconds))
        while True:
            arrived.append(lines.get_nowait())
    return arrived


def _read_lines(lines: "queue.SimpleQueue[str | None]") -> None:
    for line in sys.stdin:
        lines.put(line)
    lines.put(None)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""TensorBoard: event files that grow while runs train, in the folders of ``report --tensorboard``."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.reporting.export import tensorboard as events
from harness.store import files
from harness.tracking.tracked_run import FINAL, Key, Point, RunFacts, State, TrackedRun


class TensorBoard:
    """The event files of the runs that are open: one for each cell of a table that a run fills."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._writers: dict[tuple[TrackedRun, str], Any] = {}
        self._held: dict[tuple[TrackedRun, str], set[Key]] = {}

    def begin(self, run: TrackedRun, facts: RunFacts) -> set[Key]:
        """Read what the files of an earlier process have, which may differ between a run's folders: none is told."""
        for place in run.folders:
            folder = self.folder / place
            own = [path for path in files.entries(folder) if path.name.endswith(f".{run.run_id}")]
            events.remove_other_events(folder, *own)
            self._held[run, place] = {key for path in own for key in _points(path)}
            if not own:
                self._write_start(run, place, facts)
        return set()

    def add(self, run: TrackedRun, points: Iterable[Point]) -> None:
        for place in run.folders:
            held = self._held[run, place]
            new = [p for p in points if (p.epoch, p.tag) not in held and not p.tag.startswith(FINAL)]
            for point in new:
                self._writer(run, place).write(events.scalar(point.at, point.epoch, point.tag, point.value))
            if new:
                self._writer(run, place).flush()

    def end(self, run: TrackedRun, facts: RunFacts) -> None:
        for place in run.folders:
            if facts.state != State.RUNNING and (run, place) in self._writers:
                at = max((point.at for point in facts.points), default=time.time())
                summary = events.session_end(at, facts.state == State.FAILED)
                self._writers[run, place].write(events.event(at, summary=summary))
            if writer := self._writers.pop((run, place), None):
                writer.close()
            del self._held[run, place]

    def _write_start(self, run: TrackedRun, place: str, facts: RunFacts) -> None:
        writer, at = self._writer(run, place), facts.started
        for summary in (events.settings(run.run_id, facts.science), events.session_start(at, facts.settings.items())):
            writer.write(events.event(at, summary=summary))
        writer.flush()

    def _writer(self, run: TrackedRun, place: str) -> Any:
        """Return the writer of a file, which is younger than all others of the folder."""
        from tensorboard.summary.writer.record_writer import RecordWriter

        if (run, place) not in self._writers:
            second = int(time.time())
            while (path := events.file_of_events(self.folder / place, second, run.run_id)).exists():
                second += 1
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = self._writers[run, place] = RecordWriter(path.open("xb"))
            writer.write(events.event(second, file_version=events.FILE_VERSION))
        return self._writers[run, place]


def _points(path: Path) -> Iterable[Key]:
    """Yield the points of an event file up to where a kill has torn it."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    for event in LegacyEventFileLoader(str(path)).Load():
        yield from ((event.step, value.tag) for value in event.summary.value if value.HasField("simple_value"))


def make(folder: Path) -> TensorBoard:
    """Return the tracker that writes below a folder."""
    import tensorboard.summary.writer.record_writer  # noqa: F401 (so that it fails here if it does)

    return TensorBoard(folder)

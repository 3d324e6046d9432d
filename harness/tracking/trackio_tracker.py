"""Trackio: a run of a project for each run of a sweep, in a local SQLite database, without a Space."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.phrases import file_name
from harness.tracking.tracked_run import Key, Point, RunFacts, State, TrackedRun, by_epoch

_OF_SERVERS = ("SPACE_ID", "SERVER_URL", "BUCKET_ID", "DATASET_ID", "WEBHOOK_URL", "WRITE_TOKEN")


class Trackio:
    """The runs of a folder. Trackio has one open run per process, so each is opened for its points only."""

    def __init__(self) -> None:
        self._settings: dict[TrackedRun, dict[str, object]] = {}

    def begin(self, run: TrackedRun, facts: RunFacts) -> set[Key]:
        from trackio.sqlite_storage import SQLiteStorage

        self._settings[run] = {"run_id": run.run_id, **facts.settings}
        logs = SQLiteStorage.get_logs(_project(run), _name(run))
        return {(row["step"], tag) for row in logs for tag in row}

    def add(self, run: TrackedRun, points: Iterable[Point]) -> None:
        opened = self._open(run)
        for epoch, of_epoch in by_epoch(points).items():
            opened.log({point.tag: point.value for point in of_epoch}, step=epoch)
        opened.finish()

    def end(self, run: TrackedRun, facts: RunFacts) -> None:
        """Alert to a failure, once: Trackio knows no states of runs."""
        from trackio import AlertLevel
        from trackio.sqlite_storage import SQLiteStorage

        if facts.state == State.FAILED and not SQLiteStorage.get_alerts(_project(run), _name(run)):
            opened = self._open(run)
            opened.log({"final/failed": 1.0}, step=max((point.epoch for point in facts.points), default=0))
            opened.alert("failed", facts.cause, AlertLevel.ERROR)
            opened.finish()
        del self._settings[run]

    def _open(self, run: TrackedRun) -> Any:
        import trackio

        return trackio.init(
            _project(run),
            name=_name(run),
            group=run.group,
            config=self._settings[run],
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )


def _project(run: TrackedRun) -> str:
    return file_name(run.sweep)


def _name(run: TrackedRun) -> str:
    return f"{run.label} ({run.run_id[:8]})"  # a project's runs are told apart by their names


def make(folder: Path) -> Trackio:
    """Return the tracker whose databases are in ``trackio`` in a folder."""
    for name in _OF_SERVERS:
        os.environ.pop(f"TRACKIO_{name}", None)
    os.environ |= {"TRACKIO_DIR": str(folder / "trackio"), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    import trackio  # noqa: F401

    return Trackio()

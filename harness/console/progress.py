"""Progress through many files, with the remaining time."""

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from harness.console.terminal import duration, say

LINE_SECONDS = 60


class FilesProgress:
    """Progress on stderr: a bar for each part on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_line = time.monotonic()

    def __enter__(self) -> "FilesProgress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def tell(self, part: str, done: int, total: int) -> None:
        """Show that ``done`` of a part's ``total`` files are finished."""
        now = time.monotonic()
        if part not in self._tasks:
            self._tasks[part] = self._bars.add_task(part, total=total, completed=done, rate="")
            self._began, self._before = now, done
            return
        rate = (done - self._before) / max(now - self._began, 1e-9)
        self._bars.update(self._tasks[part], completed=done, rate=f"{rate:,.0f} images/s")
        if self._bars.disable and now - self._last_line > LINE_SECONDS:
            self._last_line = now
            left = duration((total - done) / rate)
            say(f"{part}: {done:,} of {total:,} images, {rate:,.0f} images/s, about {left} left")

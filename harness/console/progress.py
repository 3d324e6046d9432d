"""Progress through many files, with the remaining time."""

import time

from rich import progress
from rich.console import Console

from harness.console.terminal import duration, say

LINE_SECONDS = 60


class FilesProgress:
    """Progress on stderr: a bar for each part on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, progress.TaskID] = {}
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

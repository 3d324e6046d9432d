"""Progress through many files, with the remaining time."""

import time

from rich import progress

from harness.console.terminal import console, duration, escape_output, say
from harness.errors import printable

LINE_SECONDS = 60


class FilesProgress(progress.Progress):
    """Progress on stderr: a bar for each part on a terminal, else a line now and then. ``unit``: what files are."""

    def __init__(self, unit: str = "images") -> None:
        stderr = console()
        super().__init__(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            console=stderr,
            disable=not stderr.is_terminal,
        )
        self._unit = unit
        self._task_of_part: dict[str, progress.TaskID] = {}
        self._last_line = time.monotonic()

    def start(self) -> None:
        """Start as rich does. It reads commands in what is printed from then on, unless they are escaped before."""
        super().start()
        escape_output()

    def tell(self, part: str, done: int, total: int) -> None:
        """Show that ``done`` of a part's ``total`` files are finished."""
        now = time.monotonic()
        if part not in self._task_of_part:
            self._task_of_part[part] = self.add_task(printable(part), total=total, completed=done, rate="")
            self._began, self._before = now, done
            return
        rate = (done - self._before) / max(now - self._began, 1e-9)
        self.update(self._task_of_part[part], completed=done, rate=f"{rate:,.0f} {self._unit}/s")
        if self.disable and now - self._last_line > LINE_SECONDS:
            self._last_line = now
            left = duration((total - done) / rate)
            say(f"{part}: {done:,} of {total:,} {self._unit}, {rate:,.0f} {self._unit}/s, about {left} left")

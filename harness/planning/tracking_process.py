"""The process that tracks a sweep beside its jobs, see ``harness.tracking``: its start and end, and its runs."""

import json
import queue
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from harness.console.terminal import say
from harness.errors import UserError, one_line
from harness.store import files, ownership
from harness.store.store import Store

if TYPE_CHECKING:
    from harness.reporting.comparison import Contents

TENSORBOARD = "tensorboard"
_PACKAGES = {"mlflow": ("mlflow", "sqlalchemy", "alembic")}  # of tools that need more than their own
END_SECONDS = 60  # that a command waits at its end for what is left to write


@dataclass
class Tracking:
    """The tools that show a sweep's runs; none: nothing is started."""

    tools: tuple[str, ...] = ()
    event_files: Path | None = None
    _lines: "queue.SimpleQueue[str | None]" = field(default_factory=queue.SimpleQueue)

    @classmethod
    def of(cls, track: Sequence[str], event_files: Path | None, detach: bool = False) -> "Tracking":
        """Return what a command's ``--track`` and ``--tensorboard`` ask for.

        Raises:
            UserError: a library is missing, the folder is a file, or the command would not stay to feed it.
        """
        options = {name: f"--track {name}" for name in track}
        if event_files is not None:
            options[TENSORBOARD] = "--tensorboard"
            if event_files.exists() and not event_files.is_dir():
                raise UserError(
                    f"--tensorboard {event_files}: is a file; expected a folder, which need not be there yet"
                )
        for name, option in options.items():
            if not all(map(find_spec, _PACKAGES.get(name, (name,)))):
                raise UserError(f"{option} needs {name}: pip install 'kd-harness[{name}]'")
            if detach:
                raise UserError(
                    f"{option} follows the runs while the command watches them: leave out --detach, or give it later "
                    "with the same command, which finds the jobs again"
                )
        return cls(tuple(options), event_files)

    @contextmanager
    def running(self, store: Store) -> Iterator[None]:
        """Keep a process that tracks; at the end, wait a while for what it has left to write, and say if it failed."""
        if not self.tools:
            yield
            return
        try:
            process, begin = self._start(store)
        except OSError as e:  # the runs may have been started already
            say(f"tracking not started: {one_line(str(e))}; the runs go on, and the same command tracks them later")
            yield
            return
        threading.Thread(target=self._send, args=(process,), daemon=True).start()
        try:
            yield
        finally:
            self._lines.put(None)
            self._wait(process, store.tracking_log, begin)

    def _start(self, store: Store) -> "tuple[subprocess.Popen[str], int]":
        """Start the process; return it and where its messages begin in the log."""
        from slurm.module_command import module_command

        folder = self.event_files.resolve() if self.event_files else ""
        command = module_command("harness.tracking.follower", store.root, ",".join(self.tools), folder)
        store.tracking.mkdir(parents=True, exist_ok=True)
        with open(store.tracking_log, "ab", opener=ownership.without_links) as log:
            begin = log.tell()
            # A session of its own: ctrl-C ends the watching, and then the process by the end of its stdin.
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True, start_new_session=True
            )
        return process, begin

    def follow(self, contents: "Contents") -> None:
        """Track the runs of a table's cells too."""
        from harness.tracking.tracked_run import tracked_runs

        if self.tools:
            self._lines.put(json.dumps([asdict(run) for run in tracked_runs(contents)]) + "\n")

    def _send(self, process: "subprocess.Popen[str]") -> None:
        """Write lines to the process, which may be slow to read them, until there are no more."""
        assert process.stdin
        with suppress(OSError, ValueError), process.stdin:
            while (line := self._lines.get()) is not None:
                process.stdin.write(line)
                process.stdin.flush()

    def _wait(self, process: "subprocess.Popen[str]", log: Path, begin: int) -> None:
        try:
            code = process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            say(f"tracking with {', '.join(self.tools)} goes on in the background; its log: {log}")
            return
        if code:
            lines = files.read_bytes(log)[begin:].decode(errors="replace").splitlines()
            causes = [line for line in lines if line.split(":")[0] in self.tools]
            last = [f"its process was ended by signal {-code}"] if code < 0 else lines[-1:]
            said = "; ".join(causes or last) or f"its process ended with code {code}"
            say(f"tracking stopped: {said}; the runs went on, and the same command tracks what is missing")

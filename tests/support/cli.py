"""Commands as a user runs them: in this process, which is fast, or in their own."""

import contextlib
import importlib
import io
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from harness.console import app
from tests.support.warm_python import executable

REPO = Path(__file__).resolve().parents[2]
PATIENCE = 1200  # seconds after which a command counts as hanging; a busy machine is slow


@dataclass(frozen=True)
class CommandResult:
    """Output and exit code of a command."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """Return the first message of a command that refused its input; check that it printed nothing else."""
        assert self.code == 2, self
        assert self.out == "", self.out
        assert self.err.endswith("\n") and self.err != "\n", self.err
        lines = self.err[:-1].split("\n")
        assert all(line.startswith("error: ") for line in lines), self.err
        assert "Traceback" not in self.err
        return lines[0][len("error: ") :]


def arguments(name: str, *args: object) -> list[str]:
    """Return a command's arguments, for ``sweep`` with ``--no-check`` unless ``--check`` is among them.

    Hundreds of tests start sweeps, and the check before training takes seconds.
    """
    words = list(map(str, args))
    return words if name != "sweep" or "--check" in words else [*words, "--no-check"]


def run_command(name: str, *args: object) -> CommandResult:
    """Run ``python -m harness.NAME ARGS`` in this process, through the same entry point, see ``arguments``."""
    command = getattr(importlib.import_module(f"harness.{name}"), name)
    with mock.patch.object(sys, "executable", executable()):  # its jobs start warm too
        return _called(lambda: app.run_command(command), f"harness.{name}", arguments(name, *args))


def run_module(name: str, *args: object) -> CommandResult:
    """Run ``python -m NAME ARGS`` in this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it may have been imported before
        return _called(lambda: runpy.run_module(name, run_name="__main__"), name, args)


@contextlib.contextmanager
def on_a_terminal(columns: int) -> Iterator[None]:
    """Let commands in this process take their output for a terminal of this width."""
    is_terminal = mock.patch("harness.console.terminal.PrintableStream.isatty", lambda _: True, create=True)
    with is_terminal, mock.patch.dict(os.environ, COLUMNS=str(columns)):
        yield


def _called(function: Callable[[], object], name: str, args: Iterable[object]) -> CommandResult:
    out, err = io.StringIO(), io.StringIO()
    argv = [name, *map(str, args)]
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            function()
            code = 0
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
    return CommandResult(code, out.getvalue(), err.getvalue())


def use_cores(number: int = 1) -> None:
    """Keep this process to some cores, others in each pytest worker, so that its threads do not wait for others'."""
    cores = sorted(os.sched_getaffinity(0))
    first = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % len(cores)
    os.sched_setaffinity(0, (cores[first:] + cores[:first])[:number])


def process(*args: object, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> CommandResult:
    """Run ``python ARGS`` in its own process, with this checkout's code."""
    python = executable() if args[0] == "-m" else sys.executable  # a program of `-c` may ask what it has imported
    completed = subprocess.run(
        [python, *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(REPO), "COLUMNS": "200", **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=use_cores,
    )
    return CommandResult(completed.returncode, completed.stdout, completed.stderr)

"""The user's own command that tells how a sweep ends: its check, and its run in the shell."""

import os
import signal
import subprocess
from collections.abc import Mapping

from harness.errors import UserError, one_line

TIME_LIMIT = 60.0  # seconds
_SHELL = ("/bin/sh", "-c")


def command_problem(command: str) -> str:
    """Return what is wrong with a command for the shell, which only reads it; empty where nothing is."""
    if not command.strip() or "\0" in command:
        return "expected a command for the shell, such as 'mail -s \"$KD_SUMMARY\" you@example.org'"
    check = subprocess.run([_SHELL[0], "-n", *_SHELL[1:], command], capture_output=True, text=True)
    lines = check.stderr.strip().splitlines()
    return f"expected a command for the shell, which says: {one_line(lines[-1])}" if check.returncode and lines else ""


def check_command(command: str) -> None:
    """Check the command of ``--notify``.

    Raises:
        UserError: the shell cannot read it.
    """
    if problem := command_problem(command):
        raise UserError(f"--notify: {problem}")


def run_notify_command(command: str, summary: str, variables: Mapping[str, str], folder: str) -> str:
    """Run a command with the summary as its input; return what went wrong, empty where nothing did.

    No pipe is between, so that what it leaves in the background keeps nobody waiting.

    Raises:
        OSError: it cannot be started.
    """
    with os.fdopen(os.memfd_create("input"), "w+b") as given, os.fdopen(os.memfd_create("output"), "w+b") as printed:
        given.write(f"{summary}\n".encode())
        given.seek(0)
        process = subprocess.Popen(
            [*_SHELL, command],
            stdin=given,
            stdout=printed,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **variables},
            start_new_session=True,
        )
        try:
            code = process.wait(TIME_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"it took longer than {TIME_LIMIT:g} s and was ended"
        printed.seek(0)
        lines = printed.read().decode(errors="replace").strip().splitlines()
    return f"exit code {code}{f': {one_line(lines[-1], 200)}' if lines else ''}" if code else ""

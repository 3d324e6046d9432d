"""The logs of jobs and dispatchers, on a disk that may fill."""

import io
import re
import sys
from typing import Any

from harness.store import files


class _LogFile(io.FileIO):
    """A log. What its disk has no space for is lost: no run ends because its log is incomplete."""

    def write(self, data: Any) -> Any:
        try:
            return super().write(data)
        except OSError as e:
            if e.errno not in files.FULL:
                raise
            return memoryview(data).nbytes


def error_at_end(log_end: str) -> str | None:
    """Return the error that ended a Python process, from the end of its log; None of one that was killed.

    ``OSError: [Errno 13] Permission denied: 'PATH'``
    """
    lines = log_end.rstrip().splitlines()
    begun = any(line.startswith("Traceback (most recent call last)") for line in lines)
    return lines[-1][:2000] if begun and re.match(r"[A-Za-z_][\w.]*(:|$)", lines[-1]) else None


def open_log_streams() -> None:
    """Let this process print to its log, see ``_LogFile``, each line at once."""
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.BufferedWriter(_LogFile(fd, "w", closefd=False)), "utf-8", "backslashreplace", None, True)
        for fd in (1, 2)
    )

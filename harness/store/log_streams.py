"""The output of a process that prints to a log, on a disk that may fill."""

import io
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


def open_log_streams() -> None:
    """Let this process print to its log, see ``_LogFile``, each line at once."""
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.BufferedWriter(_LogFile(fd, "w", closefd=False)), "utf-8", "backslashreplace", None, True)
        for fd in (1, 2)
    )

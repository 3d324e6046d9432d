"""A Python for tests that starts in milliseconds, because a process that has imported the libraries forks it."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slurm.fork_server import WITHOUT_THREADS

VARIABLE = "WARM_PYTHON"  # by which pytest's workers find the program
ROOM = 8000  # bytes for the words of a command


@contextmanager
def warm_python() -> Iterator[Path]:
    """Start the process that forks and yield the path of a program to be used as `python`."""
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory(prefix="kd-py-", dir="/tmp") as folder:
        program, address = Path(folder, "python"), Path(folder, "socket")
        head = f"#!{sys.executable} -IS\nPYTHON, SOCKET = {sys.executable!r}, {str(address)!r}\n"
        program.write_text(head + (here / "launcher.py").read_text())
        program.chmod(0o755)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(address))
        listener.listen(100)  # launchers that come before the libraries are imported wait
        with Path(folder, "log").open("w") as log:
            server = subprocess.Popen(
                [sys.executable, here / "server.py", str(listener.fileno()), program, "-" * ROOM],
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,  # it ends with this process
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | WITHOUT_THREADS,
            )
            listener.close()  # so that without the server nobody waits for it
            try:
                yield program
            finally:
                server.kill()
                server.communicate()


def executable() -> str:
    """Return the program that starts Python fastest here."""
    return os.environ.get(VARIABLE, sys.executable)

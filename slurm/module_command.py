"""The command that runs one of the harness's modules in a process of its own."""

import sys
from pathlib import Path

from slurm.snapshot import CHECKOUT


def module_command(module: str, *arguments: object) -> list[str]:
    """Return the command that runs a module with arguments.

    It imports nothing from the current folder, which others may have sent, unless the harness itself lies there.
    """
    safe_path = ["-P"] if Path.cwd() != CHECKOUT else []
    return [sys.executable, *safe_path, "-m", module, *map(str, arguments)]

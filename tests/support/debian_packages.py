"""Debian packages of what the tests drive: root installs them; others are told what skips without them.

    python3 -m tests.support.debian_packages LOG

It needs no package of Python. While there is a LOG, which apt-get's output goes to, nothing is installed again.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from slurm.loopback import packages


class Need(NamedTuple):
    """Programs or libraries, the tests that skip without them, and the words after ``apt-get install``."""

    name: str
    tests: str
    words: tuple[str, ...]
    is_there: Callable[[], bool]


def _succeeds(*command: str) -> bool:
    return shutil.which(command[0]) is not None and subprocess.run(command, capture_output=True).returncode == 0


NEEDS = (
    Need("SLURM", "the cluster mode", tuple(packages.PACKAGES), lambda: not packages.missing()),
    Need(
        "FFCV's libraries",
        "FFCV",
        ("--no-install-recommends", "g++", "pkg-config", "libopencv-dev", "libturbojpeg0-dev"),
        lambda: shutil.which("g++") is not None and _succeeds("pkg-config", "--exists", "opencv4", "libturbojpeg"),
    ),
    Need("Chromium", "the leaderboard's page", ("chromium",), lambda: shutil.which("chromium") is not None),
    Need(
        "LaTeX",
        "tables as LaTeX",
        ("--no-install-recommends", "texlive-latex-recommended"),
        lambda: _succeeds("kpsewhich", "booktabs.sty"),
    ),
)


def main(log: Path) -> None:
    """Install what is missing, or say what it is."""
    missing = [need for need in NEEDS if not need.is_there()]
    if missing and os.geteuid() == 0 and shutil.which("apt-get") and not log.exists():
        print(f"installing {', '.join(need.name for need in missing)} for the tests", flush=True)
        with log.open("wb") as out:
            for words in (("update",), *(("-y", "install", *need.words) for need in missing)):
                quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
                subprocess.run(("apt-get", "-qq", *words), stdout=out, stderr=out, env=quiet)
        missing = [need for need in missing if not need.is_there()]
    for need in missing:
        said = f", see {log}" if log.exists() else f"; as root: apt-get install {' '.join(need.words)}"
        print(f"the tests of {need.tests} will skip: {need.name} could not be found{said}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

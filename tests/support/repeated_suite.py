"""Run the whole suite again and again while busy loops run beside it, until a run is not green.

    python -m tests.support.repeated_suite RUNS LOAD [ARGUMENTS OF PYTEST]

Ten runs take hours, so each run's end is kept in build/repeated_suite/runs.jsonl, with its output in a file beside it:
the same command goes on where it was stopped, and counts the runs of this commit, load and arguments. The exit code is
1 if one of them is not green.
"""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.support.busy_loops import busy_loops
from tests.support.cli import REPO

FOLDER = REPO / "build" / "repeated_suite"


def main(runs: int, load: int, arguments: list[str], folder: Path = FOLDER) -> bool:
    """Run what is missing of the runs; return whether all are green."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "runs.jsonl"
    same = {"commit": commit(), "load": load, "arguments": arguments}
    file.touch()
    ended = [run for run in map(json.loads, file.read_text().splitlines()) if same.items() <= run.items()]
    for number in range(1, runs + 1):
        if number > len(ended):
            ended.append({**same, **run_once(load, arguments, folder)})
            with file.open("a") as lines:
                lines.write(json.dumps(ended[-1]) + "\n")
        run = ended[number - 1]
        code, log = run["exit_code"], folder / run["log"]
        print(f"{number} of {runs}: {run['last_line']}; exit code {code}, {log}", flush=True)
        if code:
            return False
    return True


def commit() -> str:
    """Return the checkout's commit, marked when files differ from it."""
    return subprocess.check_output(["git", "describe", "--always", "--dirty"], cwd=REPO, text=True).strip()


def run_once(load: int, arguments: list[str], folder: Path) -> dict[str, Any]:
    """Run the suite beside busy loops, and return how it ended."""
    at = datetime.now(UTC)
    log = folder / f"{at:%Y%m%dT%H%M%S.%f}.log"
    began = time.monotonic()
    with log.open("w") as out, busy_loops(load):
        command = [sys.executable, "-m", "pytest", *arguments]
        code = subprocess.run(command, cwd=REPO, stdout=out, stderr=subprocess.STDOUT).returncode
    return {
        "at": at.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - began),
        "exit_code": code,
        "last_line": log.read_text(errors="replace").rstrip().rpartition("\n")[2].strip("= "),
        "log": log.name,
    }


if __name__ == "__main__":
    number, loops, *rest = sys.argv[1:]
    sys.exit(not main(int(number), int(loops), rest))

"""The process of ``tests.support.users.Session``: it runs commands of a user, one line of JSON each, and answers."""

import json
import sys
from pathlib import Path

from harness.store.store import Store
from tests.support import leaderboard_records
from tests.support.cli import run_command


def write_records(folder: str, *seeds: str) -> None:
    """Write a record of one run per seed, without training it."""
    for seed in map(int, seeds):
        science = leaderboard_records.science(seed=seed)
        leaderboard_records.put(Store(Path(folder)), leaderboard_records.record(science, 70.0 + seed % 100 / 100))


def main() -> None:
    for line in sys.stdin:
        name, *words = json.loads(line)
        if name == "write_records":
            try:
                write_records(*words)
                answer = [0, "", ""]
            except OSError as e:
                answer = [2, "", f"error: {e}"]
        else:
            answer = list(vars(run_command(name, *words)).values())
        print(json.dumps(answer), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main()

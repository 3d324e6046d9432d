"""The process of ``tests.support.users.Session``: it runs commands of a user, one line of JSON each, and answers."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from harness.store import files
from harness.store.locks import Lock
from harness.store.store import Store
from slurm.queue import Queue, own_queue_file
from tests.support import leaderboard_records
from tests.support.cli import CommandResult, run_command


def accuracy(seed: int) -> float:
    """Return the accuracy in the record of a seed, each its own."""
    return seed % 1000 / 10


def write_queue(folder: str, sweep: str) -> None:
    """Write the user's queue of a sweep, without jobs."""
    store = Store(Path(folder).resolve())
    Queue(str(store.root), (), 1, 1, None, {}, None).write(own_queue_file(store, sweep, []))


def write_records(folder: str, *seeds: str) -> None:
    """Write a record and weights of one run per seed, without training it."""
    store = Store(Path(folder))
    for seed in map(int, seeds):
        science, tensors = leaderboard_records.science(seed=seed), {"t": np.full(2, float(seed), np.float32)}
        with Lock(store.run_lock(science.run_id)) as acquired:  # as a job does: others leave its partial files alone
            assert acquired
            files.replace(store.student_weights(science.run_id), partial(save_file, tensors))
            leaderboard_records.put(store, leaderboard_records.record(science, accuracy(seed)))


WRITERS: dict[str, Callable[..., None]] = {"write_queue": write_queue, "write_records": write_records}


def answer_to(name: str, *words: str) -> CommandResult:
    """Run a command or a writer."""
    if name not in WRITERS:
        return run_command(name, *words)
    try:
        WRITERS[name](*words)
        return CommandResult(0, "", "")
    except Exception as e:
        return CommandResult(1, "", f"Traceback: {e!r}")


def main() -> None:
    for line in sys.stdin:
        answer = answer_to(*json.loads(line))
        print(json.dumps([answer.code, answer.out, answer.err]), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main()

"""The curves of runs in training: a line for each epoch, until the run's record has them all."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from pydantic import ConfigDict

from harness.errors import UserError
from harness.store import checksums, files, json_files, ownership
from harness.store.store import Store


@dataclass(frozen=True)
class EpochCurves:
    """The values that an epoch has added to a run's curves."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # a loss that diverges is no finite number
    epoch: int
    values: dict[str, float]
    at: json_files.Timestamp


def add_epoch(store: Store, run_id: str, epoch: int, values: Mapping[str, float]) -> None:
    """Note what an epoch has added to a run's curves. No run ends because this fails: then the epoch is seen later."""
    path = store.live_curves(run_id)
    line = json.dumps(checksums.seal_value({"epoch": epoch, "values": dict(values), "at": time.time()}))
    try:
        with files.errors_named(path), open(path, "ab", opener=ownership.without_links) as f:
            f.write(f"\n{line}".encode())  # begun by an end of line: a kill may have torn the line before
    except OSError as e:
        json_files.print_note(f"{path}: cannot be written: {e.strerror}")


def read_epochs(store: Store, run_id: str) -> list[EpochCurves]:
    """Return the epochs of a run in training, by epoch; of those trained again after an interruption, the last.

    Torn and damaged lines are left out, and so is all of a file that cannot be read.
    """
    epochs: dict[int, EpochCurves] = {}
    try:
        lines = files.read_bytes(store.live_curves(run_id)).split(b"\n")
    except OSError:
        return []
    for line in filter(None, lines):
        with suppress(UserError):
            known = json_files.parse_checked(EpochCurves, line, str(store.live_curves(run_id)))
            epochs[known.epoch] = known
    return [epochs[epoch] for epoch in sorted(epochs)]


def remove(store: Store, run_id: str) -> None:
    """Remove the curves of a run whose record has them."""
    with suppress(OSError):
        store.live_curves(run_id).unlink()

"""The curves of runs in training: a line for each epoch, until the run's record has them all."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

from harness.errors import UserError
from harness.store import checksums, files, json_files, ownership
from harness.store.store import Store

LONGEST = 1 << 24  # bytes that are read of a file: tens of thousands of epochs
_MOST_EPOCHS = 10**6


@dataclass(frozen=True)
class EpochCurves:
    """The values that an epoch has added to a run's curves."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # a loss that diverges is no finite number
    epoch: Annotated[int, Field(ge=-_MOST_EPOCHS, le=_MOST_EPOCHS)]
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
    path = store.live_curves(run_id)
    for line in filter(None, _content(path).split(b"\n")):
        with suppress(UserError):
            known = json_files.parse_checked(EpochCurves, line, str(path))
            epochs[known.epoch] = known
    return [epochs[epoch] for epoch in sorted(epochs)]


def _content(path: Path) -> bytes:
    """Return a file's content up to a limit. A link is not followed: others may have put it there."""
    try:
        with files.errors_named(path), open(path, "rb", opener=ownership.without_links) as f:
            content = f.read(LONGEST + 1) or b""
    except FileNotFoundError:
        return b""
    except OSError as e:
        json_files.print_note(f"{path}: cannot be read: {e.strerror}; left out")
        return b""
    if len(content) > LONGEST:
        json_files.print_note(f"{path}: larger than {LONGEST >> 20} MiB; the rest is left out")
    return content[:LONGEST]


def remove(store: Store, run_id: str) -> None:
    """Remove the curves of a run whose record has them."""
    with suppress(OSError):
        store.live_curves(run_id).unlink()

"""Copies of tunings from one store to another: a sweep's log, and the sweep file that it led to."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from harness.store import checksums, files, ownership
from harness.store.store import Store
from harness.store.tuning_log import TuningLog, read_log


@dataclass(frozen=True)
class TuningCopy:
    """A sweep's tuning in another store. ``is_new``: the store that it is copied to has none; ``is_same``: no other."""

    sweep: str
    log: TuningLog
    files: dict[str, bytes]  # by their paths in the folder of tunings
    is_new: bool
    is_same: bool


def read_tunings(source: Store, into: Store, logs: dict[str, TuningLog]) -> list[TuningCopy]:
    """Return the tunings of a store, by sweep; ``logs``: those that ``into`` takes from other stores, to be added to.

    Raises:
        UserError: one is unreadable or damaged, or a file of it is a link or leads out of the store.
    """
    tunings = []
    for path in files.entries(source.all_tunings, "*.json"):
        ownership.check_inside(source.root, path)
        log, sweep = read_log(source, path.stem), path.stem
        if files.is_there(into.tuning(sweep)):
            logs[sweep] = read_log(into, sweep)
        is_new = sweep not in logs
        is_same = asdict(logs.setdefault(sweep, log)) == asdict(log)
        tunings.append(TuningCopy(sweep, log, _sweep_files(source, sweep), is_new, is_same))
    return tunings


def copy_tuning(tuning: TuningCopy, into: Store) -> None:
    """Write a tuning. Its log is last: what is cut short is written again. What is there stays.

    Raises:
        DiskFull: the disk is full.
    """
    log = checksums.seal_value(asdict(tuning.log))
    for name, content in tuning.files.items():
        files.write_once(into.all_tunings / name, partial(_write, content))
    if tuning.is_new:
        files.replace_json(into.tuning(tuning.sweep), log)


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _sweep_files(source: Store, sweep: str) -> dict[str, bytes]:
    """Return the tuned sweep file and the recipes beside it, by their paths in the folder of tunings."""
    tuned = source.tuned_sweep(sweep)
    paths = [path for path in (tuned, *_recipes(tuned.parent)) if files.is_there(path)]
    for path in paths:
        ownership.check_inside(source.root, path)
    return {str(path.relative_to(source.all_tunings)): files.read_bytes(path) for path in paths}


def _recipes(folder: Path) -> list[Path]:
    return files.entries(folder / "recipes", "*.yaml")

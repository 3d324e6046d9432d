"""Leftovers of killed processes: temporary files, and checkpoints of runs that have a record.

Only what is surely dead is removed: files of a run whose lock is free, and other temporary files that are a day old by
the file system's clock. Names must be exactly those that the store gives.
"""

import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from harness.errors import UserError
from harness.store import files
from harness.store.locks import Lock
from harness.store.store import Store

OLD_S = 86400.0  # the age of a temporary file that nobody writes any more; writing one takes seconds
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")
_RECORD = re.compile(r"\.([0-9a-f]{16})\.parquet\.[0-9a-f]{8}\.tmp")
_CHECKPOINT = re.compile(r"epoch-\d+-step-\d+\.safetensors")
_COMPACTION = re.compile(r"\..+\.[0-9a-f]{8}\.(tmp|gone)")
_WITHOUT_LOCK = "science.json"  # the file of a run's folder that commands write, which hold no lock of the run


def remove_leftovers(store: Store) -> None:
    """Remove what killed processes have left in a store. What cannot be removed stays, as nothing depends on it.

    Of all runs, only those are looked at whose record is a file of its own: every run is one of them until a
    compaction, before which this is called.
    """
    records = [path for path in _entries(store.records) if _RECORD.fullmatch(path.name)]
    unfinished = {path.name[1:17] for path in records}
    done = store.record_index().loose
    for run_id in done | unfinished:
        _remove_of_run(store, run_id, run_id in done, [p for p in records if p.name[1:17] == run_id])
    for run_id in store.failed_ids() & done:  # killed before it made way for the record
        with suppress(OSError, UserError):
            store.archive_failure(run_id)
    _remove_old(store, [path for folder in _shared_folders(store) for path in temporary_files(folder)])
    if any(_COMPACTION.fullmatch(path.name) for path in _entries(store.compact)):
        from harness.store import compaction  # waits for pyarrow

        with suppress(OSError, files.DiskFull):
            compaction.remove_replaced(store)


def remove_partial_files(store: Store, run_id: str) -> None:
    """Remove what a killed job of the run was writing. The caller holds its lock. They may stay."""
    for path in [*_partial_files(store, run_id), *temporary_files(store.checkpoints(run_id))]:
        with suppress(OSError):
            path.unlink()


def temporary_files(folder: Path) -> list[Path]:
    """Return the files and folders of a folder that are written under a temporary name, or were."""
    return [path for path in _entries(folder) if _TEMPORARY.fullmatch(path.name)]


def _partial_files(store: Store, run_id: str) -> list[Path]:
    return [path for path in temporary_files(store.run(run_id)) if not path.name.startswith(f".{_WITHOUT_LOCK}.")]


def _remove_of_run(store: Store, run_id: str, is_done: bool, records: list[Path]) -> None:
    """Remove a run's partial files and, if it is done, its checkpoints, unless a process holds its lock."""
    checkpoints = store.checkpoints(run_id)
    has_checkpoints = is_done and checkpoints.is_dir() and not checkpoints.is_symlink()
    if not (has_checkpoints or records or _partial_files(store, run_id)):
        return
    with suppress(OSError, UserError), Lock(store.run_lock(run_id)) as acquired:
        if not acquired:
            return
        for path in records:
            path.unlink(missing_ok=True)
        remove_partial_files(store, run_id)
        if has_checkpoints:
            for path in _entries(checkpoints):
                if _CHECKPOINT.fullmatch(path.name):
                    path.unlink(missing_ok=True)
            checkpoints.rmdir()


def _shared_folders(store: Store) -> Iterable[Path]:
    """Yield the folders whose files commands and jobs write without the lock of one run."""
    yield from (store.root, store.root / "failures", store.root / "queues", store.submissions, store.code)
    yield from (store.root / name for name in ("estimates", "added_seeds", "teachers"))
    yield from (store.probes, store.checks, store.weights / "sha256", store.weights / "sources")
    yield from (store.datasets / "arrays", store.datasets / "sources")
    yield store.all_tunings
    for parent in (store.all_tables, store.all_images, store.transfers, store.root / "logits", store.all_tunings):
        yield from (path for path in _entries(parent) if path.is_dir() and not path.is_symlink())


def _remove_old(store: Store, paths: list[Path]) -> None:
    if not paths:
        return
    with suppress(OSError, files.DiskFull):
        with files.temporary_path(store.root / "clock") as clock:  # of the file system, as those of machines differ
            clock.touch()
            now = clock.stat().st_mtime
        for path in paths:
            with suppress(OSError, UserError):
                if now - path.lstat().st_mtime < OLD_S:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


def _entries(folder: Path) -> list[Path]:
    try:
        return [Path(folder, name) for name in os.listdir(folder)]
    except OSError:
        return []

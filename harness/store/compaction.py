"""Compaction: many small record files become a few Parquet files, while others write and read.

A generation is written beside the store's other ones, made durable and renamed into place: that is the commit. What it
replaces is removed only after: record files that it holds, and older generations. Killed between any two steps, the
next compaction takes up from what is there.
"""

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.errors import UserError
from harness.store import files, generations, parts, records
from harness.store.generations import INDEX, Generation
from harness.store.parts import Part
from harness.store.schema import SCHEMA_VERSION
from harness.store.store import Store

# How long what was replaced stays for readers that may not know yet: NFS keeps a directory's listing up to 60 s.
GRACE_S = 90.0
MANY = 256  # record files that take longer to read than a user should wait, about half a second


def compact(store: Store, grace_s: float = GRACE_S) -> int | None:
    """Moves records that are files of their own into a new generation; how many, or None when another is at it.

    Then, and before, removes what was replaced at least ``grace_s`` seconds ago. Damaged record files stay where they
    are: who needs them is told.

    Raises:
        DiskFull: nothing is left behind.
        UserError: the compacted records are damaged, or of a newer version.
    """
    with _alone(store) as mine:
        if not mine:
            return None
        _remove_replaced(store, grace_s)
        count = _add_generation(store)
        _link(store)
        _remove_replaced(store, grace_s)
        return count


def remove_replaced(store: Store, grace_s: float = GRACE_S) -> None:
    """Only the last step of ``compact``."""
    with _alone(store) as mine:
        if mine:
            _remove_replaced(store, grace_s)


def compact_if_many(store: Store) -> None:
    """Compacts when record files have become many. Says nothing if it cannot: nobody needs it to go on."""
    if len(store.loose_ids()) > MANY:
        with suppress(OSError, UserError, files.DiskFull):
            compact(store)


@contextmanager
def _alone(store: Store) -> Iterator[bool]:
    """Whether no other process compacts. It saves work; what is on disk stays right without."""
    lock = files.Lock(store.compact_lock)
    try:
        yield lock.acquire()
    finally:
        lock.release()


def _add_generation(store: Store) -> int:
    view = store.view()
    base = view.generation
    if base and base.schema_version > SCHEMA_VERSION:
        raise UserError(f"{base.folder}: of schema version {base.schema_version}, newer than this harness")
    if not view.loose and (base is None or base.schema_version == SCHEMA_VERSION):
        return 0
    home = store.compact / f"{(base.number if base else 0) + 1:06}"
    folder = home.with_name(f".{home.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with files.full_disk_as_error(home):
            held = _fill(folder, store, view.loose, base)
            known = base.run_ids if base else frozenset()
            added = {run_id for run_ids in held.values() for run_id in run_ids} - known
            if not added and (base is None or base.schema_version == SCHEMA_VERSION):
                return 0
            (folder / INDEX).write_text(json.dumps({"schema_version": SCHEMA_VERSION, "parts": held}))
            for path in (*folder.iterdir(), folder):
                files.sync(path)
            os.rename(folder, home)
            files.sync(store.compact)
    except OSError as e:
        if e.errno in (errno.ENOTEMPTY, errno.EEXIST):  # the number is taken: another was at it, and was quicker
            return 0
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return len(added)


def _fill(folder: Path, store: Store, loose: frozenset[str], base: Generation | None) -> dict[str, list[str]]:
    """Writes the parts: those of ``base`` that are large beside what joins them stay the same files."""
    new: dict[str, Part] = {}

    def part_of(dataset: str) -> Part:
        return new.get(dataset) or new.setdefault(dataset, Part(folder, dataset))

    for run_id in _by_age(store, loose):
        with suppress(UserError, FileNotFoundError):
            row = records.read_loose(store, run_id)
            if row.column("schema_version")[0].as_py() <= SCHEMA_VERSION:
                part_of(row.column("dataset")[0].as_py()).add(row)
    kept = {}
    for name, run_ids in sorted(base.parts.items(), key=lambda item: len(item[1])) if base else ():
        dataset = parts.dataset_of(name)
        joining = len(new[dataset].run_ids) if dataset in new else 0
        # At least doubled each time that it is written again, a row is written log2(rows) times in all.
        if base and (len(run_ids) <= joining or base.schema_version < SCHEMA_VERSION):
            for rows in parts.stream_part(base, name):
                part_of(dataset).add(rows)
        elif base:
            _keep(base.folder / name, folder / name)
            kept[name] = list(run_ids)
    return kept | {part.name: part.close() for part in new.values()}


def _by_age(store: Store, loose: frozenset[str]) -> list[str]:
    """As they were written: a sweep's runs lie together then, and who reads them reads little else."""
    written: dict[str, int] = {}
    for run_id in loose:
        with suppress(FileNotFoundError):
            written[run_id] = store.record(run_id).stat().st_mtime_ns
    return sorted(written, key=lambda run_id: (written[run_id], run_id))


def _keep(old: Path, new: Path) -> None:
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old, new)
    except FileNotFoundError:
        raise
    except OSError:  # another user's file, which Linux may refuse to link
        shutil.copyfile(old, new)
        files.sync(new)


def _link(store: Store) -> None:
    """Points the name that other Parquet readers open at the newest generation."""
    newest = generations.newest_generation(store.compact)
    if newest is None:
        return
    target, link = os.path.join(store.compact.name, newest.folder.name), store.all_runs
    if link.is_dir() and not link.is_symlink():  # as a copy of the store has it that followed links
        shutil.rmtree(link)
    if not link.is_symlink() or os.readlink(link) != target:
        files.replace(link, lambda path: path.symlink_to(target), durable=False)


def _remove_replaced(store: Store, grace_s: float) -> None:
    for path in store.compact.glob(".*.tmp"):
        _remove(path)
    for path in store.compact.glob(".*.gone"):
        shutil.rmtree(path, ignore_errors=True)
    newest = generations.newest_generation(store.compact)
    if newest is None or _age_s(store, newest) < grace_s:
        return
    for run_id in store.loose_ids() & newest.run_ids:
        with suppress(OSError):  # in a folder that is another user's: readers know that it is there twice
            store.record(run_id).unlink()
    for folder in generations.numbered(store.compact):
        if int(folder.name) < newest.number:
            _remove(folder)


def _age_s(store: Store, generation: Generation) -> float:
    """Both times are the file system's: machines' clocks differ."""
    os.utime(store.compact_lock)
    return store.compact_lock.stat().st_mtime - (generation.folder / INDEX).stat().st_mtime


def _remove(folder: Path) -> None:
    """Away in one step first: no reader finds half of it, and no writer who lost the lock renames half into place."""
    gone = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.gone")
    with suppress(OSError):
        os.rename(folder, gone)
        shutil.rmtree(gone, ignore_errors=True)

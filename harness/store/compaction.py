"""Compaction: many small record files become a few Parquet files, while other processes write and read.

A generation is written next to the store's others, made durable and renamed to its number: that is the commit. Only
then are the files removed that it replaces: record files whose rows it holds, and older generations. After a kill
between any two steps, the next compaction continues from the files that it finds.
"""

import errno
import os
import re
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from harness.errors import UserError
from harness.store import files, generations, json_files, parts, records
from harness.store.generations import INDEX, Generation, Part
from harness.store.locks import Lock
from harness.store.parts import PartWriter
from harness.store.schema import SCHEMA_VERSION
from harness.store.store import Store

# Replaced files stay this long for readers that may still list them: NFS caches a directory's listing up to 60 s.
GRACE_S = 90.0
# The only names that compaction removes. NFS keeps a file that is still open under a name of its own.
_OWN = re.compile(r"_runs\.json|dataset=[^/]+(/part-[0-9a-f]{16}\.parquet)?|(.*/)?\.nfs[0-9a-f]+")
_LEFT_BEHIND = re.compile(r"\.{1,2}\d{6,}\.[0-9a-f]{8}(\.tmp\.[0-9a-f]{8})?\.(?P<kind>tmp|gone)")
_LINK = re.compile(r"compact/\d{6,}")
MANY_FILES = 256  # record files that take longer to read than a user should wait, about half a second


def compact(store: Store, grace_s: float = GRACE_S) -> int | None:
    """Move records that are files of their own into a new generation. Damaged record files stay where they are.

    Files that were replaced at least ``grace_s`` seconds ago are removed, before and after.

    Returns:
        The number of records moved, or None when another process is compacting.

    Raises:
        DiskFull: nothing is left behind.
        UserError: the compacted records are damaged, or of a newer version.
    """
    with Lock(store.compact_lock) as acquired:  # it saves work; the store stays correct without it
        if not acquired:
            return None
        _remove_replaced(store, grace_s)
        count = _add_generation(store)
        _update_link(store)
        _remove_replaced(store, grace_s)
        return count


def remove_replaced(store: Store, grace_s: float = GRACE_S) -> None:
    """Remove the files that were replaced at least ``grace_s`` seconds ago: the last step of ``compact``."""
    with Lock(store.compact_lock) as acquired:
        if acquired:
            _remove_replaced(store, grace_s)


def compact_if_many(store: Store) -> None:
    """Compact when there are many record files. Errors are ignored: the caller works without it."""
    if len(store.loose_ids()) > MANY_FILES:
        with suppress(OSError, UserError, files.DiskFull):
            compact(store)


def _add_generation(store: Store) -> int:
    index = store.record_index()
    base = index.generation
    if base and base.schema_version > SCHEMA_VERSION:
        raise UserError(f"{base.folder / INDEX}: schema_version {base.schema_version} is newer than this harness")
    if not index.loose and (base is None or base.schema_version == SCHEMA_VERSION):
        return 0
    target = store.compact / f"{(base.number if base else 0) + 1:06}"
    folder = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with files.full_disk_as_error(target):
            written = _write_parts(folder, store, index.loose, base)
            compacted = base.run_ids if base else frozenset()
            added = {run_id for part in written.values() for run_id in part.run_ids} - compacted
            if not added and (base is None or base.schema_version == SCHEMA_VERSION):
                return 0
            generations.write_index(folder, SCHEMA_VERSION, written)
            for path in (*folder.iterdir(), folder):
                files.sync(path)
            os.rename(folder, target)
            files.sync(store.compact)
    except OSError as e:
        if e.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another process took the number first
            return 0
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return len(added)


def _write_parts(folder: Path, store: Store, loose: frozenset[str], base: Generation | None) -> dict[str, Part]:
    """Write a generation's parts to ``folder`` and return them by name.

    Parts of ``base`` with more rows than join their dataset are linked, not written again.
    """
    writers, unsealed = dict[str, PartWriter](), 0

    def writer_of(dataset: str) -> PartWriter:
        return writers.get(dataset) or writers.setdefault(dataset, PartWriter(folder, dataset))

    for run_id in _oldest_first(store, loose):
        with suppress(FileNotFoundError):
            try:
                row, sealed = records.read_loose(store, run_id)
            except UserError as e:
                json_files.print_note(f"{e}. It stays where it is")
                continue
            if row.column("schema_version")[0].as_py() <= SCHEMA_VERSION:
                unsealed += not sealed
                writer_of(row.column("dataset")[0].as_py()).add(row)
    linked = {}
    for name, run_ids in sorted(base.parts.items(), key=lambda item: len(item[1])) if base else ():
        dataset = parts.dataset_of(name)
        joining = len(writers[dataset].run_ids) if dataset in writers else 0
        # A part at least doubles each time that it is written again, so that a row is written log2(rows) times in all.
        if base and (len(run_ids) <= joining or base.schema_version < SCHEMA_VERSION):
            unsealed += len(run_ids) if base.digests is None else 0
            for rows in parts.stream_part(base, name):
                writer_of(dataset).add(rows)
        elif base and base.digests:
            _link_or_copy(base.folder / name, folder / name)
            linked[name] = Part(run_ids, base.digests[name])
    records.note_unsealed(store, unsealed)
    return linked | {writer.name: writer.close() for writer in writers.values()}


def _oldest_first(store: Store, loose: frozenset[str]) -> list[str]:
    """Sort runs by the time their records were written: rows of one sweep are then neighbours and read together."""
    written_ns: dict[str, int] = {}
    for run_id in loose:
        with suppress(FileNotFoundError):
            written_ns[run_id] = store.record(run_id).stat().st_mtime_ns
    return sorted(written_ns, key=lambda run_id: (written_ns[run_id], run_id))


def _link_or_copy(old: Path, new: Path) -> None:
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old, new)
    except FileNotFoundError:
        raise
    except OSError:  # Linux may refuse to link another user's file
        shutil.copyfile(old, new)
        files.sync(new)


def _update_link(store: Store) -> None:
    """Point the name that other Parquet readers open at the newest generation."""
    newest = generations.newest_generation(store.compact)
    if newest is None:
        return
    target, link = os.path.join(store.compact.name, newest.folder.name), store.all_runs
    if link.is_symlink():
        is_own = _LINK.fullmatch(os.readlink(link)) is not None
    else:  # a generation, in a copy of the store that was made by following links
        is_own = not link.exists() or ((link / INDEX).is_file() and _is_own(link))
    if not is_own:
        json_files.print_note(f"{link}: not written by compaction, so it stays as it is; the records are in {target}")
        return
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    if not link.is_symlink() or os.readlink(link) != target:
        files.replace(link, lambda path: path.symlink_to(target), durable=False)


def _remove_replaced(store: Store, grace_s: float) -> None:
    for path in store.compact.glob(".*"):
        left = _LEFT_BEHIND.fullmatch(path.name)
        if left and _is_own(path):
            _remove(path) if left["kind"] == "tmp" else shutil.rmtree(path, ignore_errors=True)
    newest = generations.newest_generation(store.compact)
    if newest is None or _age_s(store, newest) < grace_s:
        return
    for run_id in store.loose_ids() & newest.run_ids:
        with suppress(OSError):  # another user's folder: the file may stay, as readers count its run once
            store.record(run_id).unlink()
    for folder in generations.numbered_folders(store.compact):
        if int(folder.name) < newest.number and _is_own(folder):
            _remove(folder)


def _is_own(folder: Path) -> bool:
    """Return whether a folder holds nothing but what compaction writes."""
    return all(_OWN.fullmatch(path.relative_to(folder).as_posix()) for path in folder.rglob("*"))


def _age_s(store: Store, generation: Generation) -> float:
    """Return a generation's age by the file system's clock, as the clocks of machines differ."""
    os.utime(store.compact_lock)
    return store.compact_lock.stat().st_mtime - (generation.folder / INDEX).stat().st_mtime


def _remove(folder: Path) -> None:
    """Rename a folder, then delete it: no reader sees a part of it, and a writer without the lock cannot commit it."""
    renamed = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.gone")
    with suppress(OSError):
        os.rename(folder, renamed)
        shutil.rmtree(renamed, ignore_errors=True)

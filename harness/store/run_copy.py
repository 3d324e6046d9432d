"""Copies of finished runs from one store to another: the record, and what the run's folder has of a finished run."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path

import pyarrow as pa

from harness.spec.science import Science
from harness.store import checksums, files, json_files, leftovers, live_curves, ownership, records
from harness.store.locks import Lock
from harness.store.store import Store

_BLOCK = 1 << 20  # bytes


class Outcome(StrEnum):
    """The end of the copy of a run."""

    TAKEN = "taken"
    THERE = "there"  # another process has written its record meanwhile
    BUSY = "busy"  # another process is training or copying it


def check_files(store: Store, run_id: str) -> None:
    """Check that what a copy of a run reads are the store's own files.

    Raises:
        UserError: one is a link, or leads out of the store.
    """
    ownership.check_inside(store.root, store.run(run_id))
    for path in (store.student_weights(run_id), store.best_weights(run_id), store.predictions(run_id)):
        ownership.check_inside(store.root, path)


def copy_run(source: Store, into: Store, row: pa.Table) -> Outcome:
    """Copy a run that ``into`` has no record of. Its record, ``row``, is written last: what is cut short begins anew.

    Raises:
        DiskFull: the disk is full; the run has no record in ``into``.
    """
    run_id, sha256 = (row.column(name)[0].as_py() for name in ("run_id", "weights_sha256"))
    with Lock(into.run_lock(run_id)) as acquired:
        if into.record(run_id).exists() or not acquired:
            return Outcome.THERE if into.record(run_id).exists() else Outcome.BUSY
        leftovers.remove_partial_files(into, run_id)
        into.write_science(run_id, Science.from_text(row.column("science")[0].as_py()))
        _copy_weights(source, into, run_id, sha256)
        if progress := source.progress(run_id):
            into.write_progress(run_id, **progress)
        if not records.write_row(into, run_id, row):
            return Outcome.THERE
        live_curves.remove(into, run_id)
        shutil.rmtree(into.checkpoints(run_id), ignore_errors=True)
        into.archive_failure(run_id)
    return Outcome.TAKEN


def add_weights(source: Store, into: Store, run_id: str, sha256: str) -> None:
    """Copy the weights of a run that ``into`` has the record of, but no weights; ``sha256``: as the record states.

    Raises:
        DiskFull: the disk is full.
    """
    with Lock(into.run_lock(run_id)) as acquired:
        if acquired and not into.student_weights(run_id).exists():
            _copy_weights(source, into, run_id, sha256)


def _copy_weights(source: Store, into: Store, run_id: str, sha256: str) -> None:
    """Copy the weights of a run, and what lies beside them. What is damaged is said and left out.

    What ``into`` has of an attempt that left no record is removed: it belongs to no record.
    """
    check_files(source, run_id)
    weights, best, predictions = into.student_weights(run_id), into.best_weights(run_id), into.predictions(run_id)
    if not (weights.exists() and files.sha256(weights) == sha256):
        weights.unlink(missing_ok=True)
        with _damage_noted(source.student_weights(run_id)):
            files.replace(weights, partial(_copy_content, source.student_weights(run_id), sha256))
    best.unlink(missing_ok=True)
    with _damage_noted(source.best_weights(run_id)):
        content = files.read_bytes(source.best_weights(run_id))
        if not checksums.check_bytes(content):
            raise checksums.WrongChecksum
        files.replace(best, lambda path: path.write_bytes(content))
    predictions.unlink(missing_ok=True)
    with _damage_noted(source.predictions(run_id)):
        checksums.write_with_sum(predictions, checksums.read_with_sum(source.predictions(run_id)))


def _copy_content(source: Path, sha256: str, path: Path) -> None:
    """Copy a file block by block, as weights may be large.

    Raises:
        WrongChecksum: its content has another sha256.
    """
    digest = hashlib.sha256()
    with open(source, "rb", opener=ownership.without_links) as old, path.open("xb") as new:
        while block := old.read(_BLOCK):
            digest.update(block)
            new.write(block)
    if digest.hexdigest() != sha256:
        raise checksums.WrongChecksum


@contextmanager
def _damage_noted(path: Path) -> Iterator[None]:
    """Go on without a source's file that is missing, or damaged, which is said."""
    try:
        yield
    except FileNotFoundError:
        pass
    except checksums.WrongChecksum as e:
        json_files.print_note(f"{path}: damaged: {e}; not taken")

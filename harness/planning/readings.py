"""Datasets that are read once: found in the cache, or read by a process of their own. No code of theirs runs here."""

import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from harness.console.progress import FilesProgress
from harness.console.terminal import say
from harness.data.reading_order import ReadingOrder, ReadingResult
from harness.errors import UserError
from harness.phrases import plural
from harness.spec import datasets, identity, own_data
from harness.spec.schema import Dataset
from harness.spec.tasks import DatasetInfo
from harness.store import files
from harness.store.data_cache import DataCache, ReadData
from slurm.module_command import module_command

_READERS = 1  # raised when the harness's own readers give other arrays for the same files
_POLL_S = 0.1


def read_once(dataset: Dataset, root: Path | None, place: Path | None, cache: DataCache, store: Path) -> DatasetInfo:
    """Return the facts of a dataset; read it first if the cache lacks it, or if it has changed.

    Args:
        root: the data root.
        place: of a dataset of the harness, the folder or file that has it; else None.
        store: the folder from which no code is run.

    Raises:
        UserError: there is no such class, or what it reads is no dataset.
    """
    source = [str(place), _READERS]
    if datasets.is_own(dataset.name):
        own_data.code_of(dataset.name).refuse_in(store)
        source = [own_data.source_hash(dataset.name), str(root)]
    key = identity.digest({"dataset": dataset.reference, "source": source})
    data = cache.find(key) or _read(dataset, root, place, cache, key)
    facts = {name: getattr(data, name) for name in ("version", *datasets.COUNTS, "image_shape", "mean", "std")}
    return replace(datasets.info_of(dataset.reference), **facts)


def _read(dataset: Dataset, root: Path | None, place: Path | None, cache: DataCache, key: str) -> ReadData:
    lock = cache.lock(key)
    if not (acquired := lock.acquire()):
        say(f"another process is reading {dataset.reference}: waiting for it")
    while not acquired:
        time.sleep(_POLL_S)
        acquired = lock.acquire()
    try:
        if data := cache.find(key):
            return data
        before = cache.last_version(key)
        with tempfile.TemporaryDirectory(prefix="harness-data-") as scratch:
            result = _run(dataset, root, place, cache, key, Path(scratch))
        if result.error:
            raise UserError(result.error)
        if (data := cache.find(key)) is None:
            raise UserError(f"dataset {dataset.reference!r}: it changes while it is read")
        sizes = f"{data.train_size:,} training and {plural(data.test_size, 'test image')}"
        changed = "" if before in (None, data.version) else f", not {before} as before: its runs are other runs"
        say(f"{dataset.reference}: {sizes}, content {data.version}{changed}{result.note}")
        return data
    finally:
        lock.release()


def _run(
    dataset: Dataset, root: Path | None, place: Path | None, cache: DataCache, key: str, scratch: Path
) -> ReadingResult:
    """Run the process that reads, and show its progress."""
    progress, result = scratch / "progress", scratch / "result"
    ReadingOrder(
        dataset.model_dump(),
        root=str(root) if root else None,
        place=str(place) if place else None,
        cache=str(cache.root),
        key=key,
        progress=str(progress),
        result=str(result),
    ).write(scratch / "order")
    say(f"reading {dataset.reference}, once: its arrays go to {cache.root}")
    log = scratch / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            module_command("harness.data.load.reading", scratch / "order"),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,
        )
    try:
        _show_progress(process, progress)
    finally:
        with suppress(ProcessLookupError):  # with what it has started
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    if (ended := ReadingResult.read(result)) is not None:
        return ended
    how = f"with code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
    memory = " (out of memory?)" if code == -signal.SIGKILL else ""
    last = files.tail(log, 1).strip()
    return ReadingResult(f"dataset {dataset.reference!r}: its reading was ended {how}{memory}{last and f': {last}'}")


def _show_progress(process: "subprocess.Popen[bytes]", path: Path) -> None:
    with FilesProgress() as progress:
        while process.poll() is None:
            if isinstance(state := files.read_json(path), list):
                progress.tell(*state)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S)

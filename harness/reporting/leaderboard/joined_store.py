"""Several stores as one, for the leaderboard: their records once each, and what else the page shows of them."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from harness.errors import UserError, raise_mistakes
from harness.phrases import file_name
from harness.reporting.comparison import Contents
from harness.store import files, generations, record_agreement, record_stream
from harness.store.parts import PartWriter
from harness.store.schema import SCHEMA_VERSION
from harness.store.store import Store


@contextmanager
def joined_store(stores: Sequence[Store]) -> Iterator[Store]:
    """Yield one store with all that the page shows of the given ones; of several, one in a temporary folder.

    Raises:
        UserError: a record is damaged, or two stores have different results of a run.
    """
    if len(stores) == 1:
        yield stores[0]
        return
    with tempfile.TemporaryDirectory() as folder:
        joined = Store.at(Path(folder))
        _write_records(stores, joined)
        for store in stores:
            _link_tables(store, joined)
            for name in ("failures", "runs"):
                _link(store.root / name, joined.root / name)
            _link(store.all_images, joined.all_images)
            _link(store.all_tunings, joined.all_tunings, "*.json")
        yield joined


def _write_records(stores: Sequence[Store], joined: Store) -> None:
    """Write each run's record once: that of the first store which has it."""
    listed = [store.done_ids() for store in stores]
    several = record_agreement.in_several(listed)
    read = [
        record_agreement.read_run_records(store, run_ids & several, several)
        for store, run_ids in zip(stores, listed, strict=True)
    ]
    raise_mistakes(record_agreement.conflicts(list(zip(stores, read, strict=True))))
    folder, writers, written = joined.compact / "000001", dict[str, PartWriter](), set[str]()
    for store, run_ids in zip(stores, listed, strict=True):
        for table in record_stream.stream_records(store, run_ids - written):
            for i, dataset in enumerate(table.column("dataset").to_pylist()):
                writer = writers.get(dataset) or writers.setdefault(dataset, PartWriter(folder, dataset))
                writer.add(table.slice(i, 1))
        written |= run_ids
    if writers:
        generations.write_index(folder, SCHEMA_VERSION, {writer.name: writer.close() for writer in writers.values()})


def _link_tables(store: Store, joined: Store) -> None:
    """Link a store's tables. Of a sweep that several stores have, the cells are joined."""
    for folder in store.tables():
        target = joined.table_folder(folder.name)
        if not files.is_there(target):
            _link_one(folder, target)
            continue
        try:
            first, second = Contents.read(target), Contents.read(folder)
        except UserError:  # the page names damaged tables, and shows the others
            _link_one(folder, joined.table_folder(file_name(folder.name, store.root.name)))
            continue
        if target.is_symlink():
            target.unlink()
        replace(first, cells=tuple(dict.fromkeys((*first.cells, *second.cells)))).write(target)


def _link(source: Path, target: Path, pattern: str = "*") -> None:
    """Link the entries of a folder that the target does not have yet."""
    for path in files.entries(source, pattern):
        if not files.is_there(target / path.name):
            _link_one(path, target / path.name)


def _link_one(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)

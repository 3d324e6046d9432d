"""A comparison's folder in the store: every format, the Parquet file, and the contents to rebuild them from.

Sweeps of one name share a folder, which always holds the whole set of files of one of them: who writes it holds a lock,
and who compares its files looks whether it was written meanwhile.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from harness import reporting
from harness.errors import UserError
from harness.reporting.comparison import Comparison, Contents, compare, name_rows, read_compared
from harness.reporting.paper import render as paper_formats
from harness.reporting.paper.table import Paper, paper
from harness.reporting.published import numbers
from harness.reporting.published.table import PublishedTable, published_table
from harness.reporting.tables import digests, formats, gap
from harness.reporting.tables.digests import Digests
from harness.reporting.tuning import FILES as TUNING
from harness.reporting.tuning import read_tuning, write_tuning
from harness.spec.sweep_plan import Cell
from harness.store import files, json_files, record_stream
from harness.store.locks import Lock, is_locked
from harness.store.schema import FIDELITY_COLUMNS
from harness.store.store import CONTENTS, Store

# table: a line per method and pair, with all numbers. paper: methods by pairs, as papers print them.
TEXTS = tuple(f"{layout}.{form}" for layout in ("table", "paper") for form in formats.FORMATS)
FIDELITY = tuple(f"fidelity.{form}" for form in formats.FORMATS)  # written on request
TABLE = "table.md"  # of TEXTS, what a sweep prints
_FILES = (*TEXTS, "records.parquet", CONTENTS)
_POLL_SECONDS = 0.05
_Changed = Callable[[pa.Table], pa.Table]


def write_tables(contents: Contents, store: Store, folder: Path, changed: _Changed = lambda rows: rows) -> Comparison:
    """Write table.md, .tex, .csv, .html, paper.md and so on, records.parquet, contents.json and their digests, and the
    tuning's tables where the contents have one.

    ``changed``: returns the records, or columns of them, as they are to be shown.

    Raises:
        UserError: a record is damaged, or the tuning's log is damaged or missing.
        DiskFull: the folder's disk is full.
    """
    with writing_alone(store, folder):
        log = read_tuning(store, contents.name) if contents.tuning else None
        made_from = _made_from(contents, store)
        rows = changed(read_compared([contents], store))
        with_record = set(rows.column("run_id").to_pylist())
        comparison = compare(contents, rows)
        del rows
        (folder / digests.FILE).unlink(missing_ok=True)
        for name in TEXTS:
            files.replace_text(folder / name, table_text(comparison, name))
        cells = [cell for cell in contents.cells if cell.run_id in with_record]
        empty = FIDELITY_COLUMNS * (not comparison.has_fidelity) + ("retries",) * (not comparison.retries)
        write_records = partial(_write_records, contents, cells, store, changed, empty)
        files.replace(folder / "records.parquet", write_records, durable=False)
        if log:
            write_tuning(log, folder)
        contents.write(folder)
        Digests.of(folder, _files(contents), made_from).write(folder)
        return comparison


def write_gap(comparison: Comparison, store: Store, folder: Path) -> Path | None:
    """Write the slopes over the teachers' sizes into a sweep's folder; None where there are too few teachers."""
    text, path = gap.gap_markdown(comparison), folder / gap.FILE
    if not text:
        return None
    with writing_alone(store, folder):
        files.replace_text(path, text)
    return path


@contextlib.contextmanager
def writing_alone(store: Store, folder: Path) -> Iterator[None]:
    """Keep other processes from writing to a sweep's folder in the store. Folders elsewhere have no lock."""
    with contextlib.ExitStack() as stack:
        if folder.parent.resolve() == store.all_tables.resolve():
            lock = _lock_of(folder)
            with contextlib.suppress(UserError):  # no locks in this file system; tables are written there all the same
                if not stack.enter_context(Lock(lock)):
                    json_files.print_note(f"{folder}: waits for another process to write it")
                    stack.enter_context(Lock(lock, wait=True))
        yield


def settled_version(folder: Path) -> tuple[int, ...]:
    """Wait until nobody writes to a sweep's folder, and return numbers that change whenever somebody does."""
    with contextlib.suppress(UserError):  # no locks
        while is_locked(_lock_of(folder)):
            time.sleep(_POLL_SECONDS)
    status = folder.stat()
    try:
        digest = (folder / digests.FILE).stat()
    except FileNotFoundError:
        return (status.st_mtime_ns,)
    return status.st_mtime_ns, digest.st_mtime_ns, digest.st_ino


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def write_fidelity(comparison: Comparison, store: Store, folder: Path) -> None:
    """Write fidelity.md, .tex, .csv and .html beside a comparison's tables."""
    with writing_alone(store, folder):
        for name in FIDELITY:
            files.replace_text(folder / name, table_text(comparison, name))


def _write_records(
    contents: Contents, cells: Sequence[Cell], store: Store, changed: _Changed, without: Sequence[str], path: Path
) -> None:
    """Write the records of the cells, a row group of each table that is in memory at a time."""
    with contextlib.ExitStack() as stack:
        writer, done = None, 0
        for rows in record_stream.stream_in_order(store, [cell.run_id for cell in cells], path.parent):
            own = cells[done : done + len(rows)]
            table = name_rows(contents, own, changed(rows), without)
            writer = writer or stack.enter_context(pq.ParquetWriter(path, table.schema))
            writer.write_table(table)
            done += len(rows)
            del rows, table  # before the next ones are read


def published_for(comparison: Comparison) -> PublishedTable | None:
    """Return the published numbers that belong under a comparison's table."""
    return published_table(comparison, numbers.published_numbers(comparison.contents.dataset))


def table_text(comparison: Comparison, name: str) -> str:
    """Return the content of one of ``TEXTS`` or ``FIDELITY``."""
    layout, form = name.split(".")
    if layout == "fidelity":
        return formats.fidelity_text(comparison, form)
    if layout == "paper":
        return paper_formats.FORMATS[form](paper_of(comparison))
    return formats.FORMATS[form](comparison, published_for(comparison))


def paper_of(comparison: Comparison) -> Paper:
    """Return a comparison in a paper's layout, with the published numbers for its pairs."""
    known = numbers.published_numbers(comparison.contents.dataset)
    return paper(comparison, published_table(comparison, known), known)


def tables_are_current(contents: Contents, store: Store, folder: Path) -> bool:
    """Return whether the tables have these contents, and are as they were written from what the store holds now."""
    return current_table(contents, store, folder) is not None


def current_table(contents: Contents, store: Store, folder: Path) -> str | None:
    """Return the text of ``TABLE`` where the tables are current; None where they have to be written."""
    try:
        if Contents.read(folder) != contents:
            return None
        text, written = files.read_bytes(folder / TABLE), Digests.read(folder)
        if written != Digests.of(folder, _files(contents), _made_from(contents, store)):
            return None
    except (UserError, FileNotFoundError):
        return None
    # Another sweep of this name may have written the folder since the text was read.
    return text.decode() if written.files[TABLE] == hashlib.sha256(text).hexdigest() else None


def _files(contents: Contents) -> tuple[str, ...]:
    return (*_FILES, *(TUNING if contents.tuning else ()))


def _made_from(contents: Contents, store: Store) -> str:
    """Return a digest of all that tables follow from: records, the tuning's log, published numbers, and the code that
    writes them.

    Compacted records count by the names of their parts, which are random and whose content never changes.
    """
    run_ids = contents.run_ids() & store.done_ids()
    digest = hashlib.sha256(f"{_code()} {sorted(run_ids)}".encode())
    for path in sorted(store.record_files(run_ids)):
        digest.update(f"{path.name} {files.sha256(path) if path.parent == store.records else ''}\n".encode())
    published = numbers.published_file(contents.dataset)
    others = [published] if published.exists() else []
    others += [store.tuning(contents.name)] if contents.tuning else []
    for path in others:
        digest.update(files.read_bytes(path))
    return digest.hexdigest()


@cache
def _code() -> str:
    """Return a digest of the package that makes tables."""
    paths = sorted(Path(reporting.__path__[0]).rglob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()

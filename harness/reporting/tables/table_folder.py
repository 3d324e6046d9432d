"""A comparison's folder in the store: every format, the Parquet file, and the contents to rebuild them from."""

import hashlib
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq

from harness import reporting
from harness.errors import UserError
from harness.reporting.comparison import Comparison, Contents, cell_table, compare
from harness.reporting.paper import render as paper_formats
from harness.reporting.paper.table import paper
from harness.reporting.published import numbers
from harness.reporting.published.table import PublishedTable, published_table
from harness.reporting.tables import digests, formats
from harness.reporting.tables.digests import Digests
from harness.store import files, records
from harness.store.store import CONTENTS, Store

# table: a line per method and pair, with all numbers. paper: methods by pairs, as papers print them.
TEXTS = tuple(f"{layout}.{form}" for layout in ("table", "paper") for form in formats.FORMATS)
_FILES = (*TEXTS, "records.parquet", CONTENTS)


def write_tables(contents: Contents, store: Store, folder: Path) -> Comparison:
    """Write table.md, .tex, .csv, .html, paper.md and so on, records.parquet, contents.json and their digests.

    Raises:
        UserError: a record is damaged.
        DiskFull: the folder's disk is full.
    """
    made_from = _made_from(contents, store)
    rows = records.read_records(store, contents.run_ids())
    comparison = compare(contents, rows)
    (folder / digests.FILE).unlink(missing_ok=True)
    for name in TEXTS:
        files.replace_text(folder / name, table_text(comparison, name))
    cells = cell_table(contents, rows)
    files.replace(folder / "records.parquet", lambda path: pq.write_table(cells, path), durable=False)
    contents.write(folder)
    Digests.of(folder, _FILES, made_from).write(folder)
    return comparison


def published_for(comparison: Comparison) -> PublishedTable | None:
    """Return the published numbers that belong under a comparison's table."""
    return published_table(comparison, numbers.published_numbers(comparison.contents.dataset))


def table_text(comparison: Comparison, name: str) -> str:
    """Return the content of one of ``TEXTS``."""
    layout, form = name.split(".")
    known = numbers.published_numbers(comparison.contents.dataset)
    published = published_table(comparison, known)
    if layout == "paper":
        return paper_formats.FORMATS[form](paper(comparison, published, known))
    return formats.FORMATS[form](comparison, published)


def tables_are_current(contents: Contents, store: Store, folder: Path) -> bool:
    """Return whether the tables have these contents, and are as they were written from what the store holds now."""
    try:
        if Contents.read(folder) != contents:
            return False
        return Digests.read(folder) == Digests.of(folder, _FILES, _made_from(contents, store))
    except (UserError, FileNotFoundError):
        return False


def _made_from(contents: Contents, store: Store) -> str:
    """Return a digest of all that tables follow from: records, published numbers, and the code that writes them.

    Compacted records count by the names of their parts, which are random and whose content never changes.
    """
    run_ids = contents.run_ids() & store.done_ids()
    digest = hashlib.sha256(f"{_code()} {sorted(run_ids)}".encode())
    for path in sorted(store.record_files(run_ids)):
        digest.update(f"{path.name} {files.sha256(path) if path.parent == store.records else ''}\n".encode())
    published = numbers.published_file(contents.dataset)
    if published.exists():
        digest.update(published.read_bytes())
    return digest.hexdigest()


@cache
def _code() -> str:
    """Return a digest of the package that makes tables."""
    paths = sorted(Path(reporting.__path__[0]).rglob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()

"""A comparison's folder in the store: every format, the Parquet file, and the contents to rebuild them from."""

from pathlib import Path

import pyarrow.parquet as pq

from harness.errors import UserError
from harness.reporting.comparison import Comparison, Contents, cell_table, compare
from harness.reporting.paper import render as paper_formats
from harness.reporting.paper.table import paper
from harness.reporting.published import numbers
from harness.reporting.published.table import PublishedTable, published_table
from harness.reporting.tables import formats
from harness.store import files, records
from harness.store.store import Store

# table: a line per method and pair, with all numbers. paper: methods by pairs, as papers print them.
TEXTS = tuple(f"{layout}.{form}" for layout in ("table", "paper") for form in formats.FORMATS)


def write_tables(contents: Contents, store: Store, folder: Path) -> Comparison:
    """Write table.md, .tex, .csv, .html, paper.md and so on, records.parquet and contents.json.

    Raises:
        UserError: a record is damaged.
        DiskFull: the folder's disk is full.
    """
    rows = records.read_records(store, contents.run_ids())
    comparison = compare(contents, rows)
    for name in TEXTS:
        files.replace_text(folder / name, table_text(comparison, name))
    cells = cell_table(contents, rows)
    files.replace(folder / "records.parquet", lambda path: pq.write_table(cells, path), durable=False)
    contents.write(folder)
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
    """Return whether the tables have these contents and are younger than their records and published numbers."""
    try:
        if Contents.read(folder) != contents:
            return False
        written = min((folder / name).stat().st_mtime_ns for name in TEXTS)
        published = numbers.published_file(contents.dataset)
        sources = store.record_files(contents.run_ids()) | ({published} if published.exists() else set())
        return all(path.stat().st_mtime_ns < written for path in sources)
    except (UserError, FileNotFoundError):
        return False

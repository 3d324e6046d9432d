"""A comparison's folder in the store: every format, the Parquet file, and what it takes to rebuild them."""

from pathlib import Path

import pyarrow.parquet as pq

from harness.errors import UserError
from harness.reporting.comparison import Comparison, Contents, cell_table, compare, wanted_runs
from harness.reporting.paper import render as paper_formats
from harness.reporting.paper.table import paper
from harness.reporting.published import numbers
from harness.reporting.published.table import PublishedTable, published_table
from harness.reporting.tables import formats
from harness.store import files, records
from harness.store.store import Store

# table: a line per method and pair, with all that is known of it. paper: methods by pairs, as papers print them.
TEXTS = tuple(f"{layout}.{form}" for layout in ("table", "paper") for form in formats.FORMATS)


def write_tables(contents: Contents, store: Store, folder: Path) -> Comparison:
    """Writes table.md, .tex, .csv, .html, paper.md and so on, records.parquet and contents.json.

    Raises:
        UserError: a damaged record.
        DiskFull: as it says.
    """
    rows = records.read_records(store, wanted_runs(contents))
    comparison = compare(contents, rows)
    for name in TEXTS:
        files.replace_text(folder / name, table_text(comparison, name))
    cells = cell_table(contents, rows)
    files.replace(folder / "records.parquet", lambda path: pq.write_table(cells, path), durable=False)
    contents.write(folder)
    return comparison


def published_for(comparison: Comparison) -> PublishedTable | None:
    """The published numbers that belong under a comparison's table."""
    return published_table(comparison, numbers.published_numbers(comparison.contents.dataset))


def table_text(comparison: Comparison, name: str) -> str:
    """The content of one of ``TEXTS``."""
    layout, form = name.split(".")
    known = numbers.published_numbers(comparison.contents.dataset)
    found = published_table(comparison, known)
    if layout == "paper":
        return paper_formats.FORMATS[form](paper(comparison, found, known))
    return formats.FORMATS[form](comparison, found)


def tables_are_current(contents: Contents, store: Store, folder: Path) -> bool:
    """Whether the folder's tables are of these contents and younger than every record and published number of them."""
    try:
        if Contents.read(folder) != contents:
            return False
        written = min((folder / name).stat().st_mtime_ns for name in TEXTS)
        known = numbers.published_file(contents.dataset)
        made_of = store.record_files(wanted_runs(contents)) | ({known} if known.exists() else set())
        return all(path.stat().st_mtime_ns < written for path in made_of)
    except (UserError, FileNotFoundError):
        return False

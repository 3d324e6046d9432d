"""A comparison's folder in the store: every format, the Parquet file, and what it takes to rebuild them."""

from pathlib import Path

import pyarrow.parquet as pq

from harness.errors import UserError
from harness.reporting import published, render
from harness.reporting.beside import Beside, beside
from harness.reporting.comparison import Comparison, Contents, cell_table, compare, wanted_runs
from harness.store import files, records
from harness.store.store import Store


def publish(contents: Contents, store: Store, folder: Path) -> Comparison:
    """Writes table.md, .tex, .csv, .html, records.parquet and contents.json.

    Raises:
        UserError: a damaged record.
        DiskFull: as it says.
    """
    rows = records.read(store, wanted_runs(contents))
    comparison = compare(contents, rows)
    for form in render.FORMATS:
        files.replace_text(folder / f"table.{form}", text(comparison, form))
    cells = cell_table(contents, rows)
    files.replace(folder / "records.parquet", lambda path: pq.write_table(cells, path), durable=False)
    contents.write(folder)
    return comparison


def published_beside(comparison: Comparison) -> Beside | None:
    """The published numbers that belong under a comparison's table."""
    return beside(comparison, published.published(comparison.contents.dataset))


def text(comparison: Comparison, form: str) -> str:
    """A comparison's tables in one of ``render.FORMATS``."""
    return render.FORMATS[form](comparison, published_beside(comparison))


def is_current(contents: Contents, store: Store, folder: Path) -> bool:
    """Whether the folder's tables are of these contents and younger than every record and published number of them."""
    try:
        if Contents.read(folder) != contents:
            return False
        written = min((folder / f"table.{suffix}").stat().st_mtime_ns for suffix in render.FORMATS)
        known = published.file(contents.dataset)
        made_of = store.record_files(wanted_runs(contents)) | ({known} if known.exists() else set())
        return all(path.stat().st_mtime_ns < written for path in made_of)
    except (UserError, FileNotFoundError):
        return False

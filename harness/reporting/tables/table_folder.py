"""A comparison's folder in the store: every format, the Parquet file, and the contents to rebuild them from."""

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import UserError
from harness.reporting.comparison import Comparison, Contents, compare, name_rows, read_compared
from harness.reporting.paper import render as paper_formats
from harness.reporting.paper.table import paper
from harness.reporting.published import numbers
from harness.reporting.published.table import PublishedTable, published_table
from harness.reporting.tables import formats
from harness.spec.expand import Cell
from harness.store import files, record_stream
from harness.store.store import Store

# table: a line per method and pair, with all numbers. paper: methods by pairs, as papers print them.
TEXTS = tuple(f"{layout}.{form}" for layout in ("table", "paper") for form in formats.FORMATS)


def write_tables(contents: Contents, store: Store, folder: Path, hosts: Mapping[str, str] | None = None) -> Comparison:
    """Write table.md, .tex, .csv, .html, paper.md and so on, records.parquet and contents.json.

    ``hosts``: names in place of the hosts' own.

    Raises:
        UserError: a record is damaged.
        DiskFull: the folder's disk is full.
    """
    rows = read_compared([contents], store)
    with_record = set(rows.column("run_id").to_pylist())
    comparison = compare(contents, rows)
    del rows
    for name in TEXTS:
        files.replace_text(folder / name, table_text(comparison, name))
    cells = [cell for cell in contents.cells if cell.run_id in with_record]
    files.replace(folder / "records.parquet", partial(_write_records, contents, cells, store, hosts), durable=False)
    contents.write(folder)
    return comparison


def _write_records(
    contents: Contents, cells: Sequence[Cell], store: Store, hosts: Mapping[str, str] | None, path: Path
) -> None:
    """Write the records of the cells, a row group of each table that is in memory at a time."""
    with contextlib.ExitStack() as stack:
        writer, done = None, 0
        for rows in record_stream.stream_in_order(store, [cell.run_id for cell in cells], path.parent):
            own = cells[done : done + len(rows)]
            table = name_rows(contents, own, with_hosts(rows, hosts) if hosts else rows)
            writer = writer or stack.enter_context(pq.ParquetWriter(path, table.schema))
            writer.write_table(table)
            done += len(rows)
            del rows, table  # before the next ones are read


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


def with_hosts(rows: pa.Table, hosts: Mapping[str, str]) -> pa.Table:
    """Return records with names in place of their hosts' own."""
    at = rows.schema.get_field_index("host")
    names = [hosts[host] for host in rows.column("host").to_pylist()]
    return rows.set_column(at, rows.schema.field(at), pa.array(names, pa.string()))

"""A comparison as Markdown, LaTeX, CSV or HTML: pure functions of it and of the published numbers next to it.

The same records give the same bytes.
"""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from harness.reporting.comparison import Comparison, Row
from harness.reporting.escape import escape_csv, escape_html, escape_markdown, escape_tex
from harness.reporting.html_page import page
from harness.reporting.published.table import PublishedTable
from harness.reporting.tables import latex as latex_tables
from harness.reporting.tables.column_choice import chosen_columns
from harness.reporting.tables.columns import (
    Column,
    Lines,
    comparison_columns,
    fidelity_columns,
    published_columns,
    rank_columns,
    table_lines,
)
from harness.reporting.tables.text import Section, fidelity_section, notes, sections, settings_section


def markdown(comparison: Comparison, published: PublishedTable | None = None) -> str:
    return _markdown(sections(comparison, published))


def _markdown(tables: Iterable[Section]) -> str:
    parts = []
    for section in tables:
        parts += ["", f"{escape_markdown(section.title)}:", ""] if section.title else []
        lines = [tuple(map(escape_markdown, line)) for line in section.lines]
        parts += [markdown_table(lines), *map(escape_markdown, section.remarks)]
    return "\n".join(parts) + "\n"


def settings_markdown(comparison: Comparison) -> str:
    """Return the settings of each line as a table."""
    return "\n" + _markdown([settings_section(comparison)])


def markdown_table(lines: Lines, names: int = 2) -> str:
    """Return a table of escaped texts whose source is readable too. ``names``: how many columns are aligned left."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def line(cells: tuple[str, ...]) -> str:
        padded = (c.ljust(w) if i < names else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join(("-" * (w + 2) if i < names else "-" * (w + 1) + ":") for i, w in enumerate(widths)) + "|"
    head, *body = (line(cells) for cells in lines)
    return "\n".join([head, rule, *body, ""])


def title(comparison: Comparison, form: str) -> str:
    """Return the heading of a table that stands among others, in a format that has headings beside its tables."""
    name = comparison.contents.name
    headings = {"md": f"## {escape_markdown(name)}\n\n", "tex": f"% {escape_tex(name)}\n"}
    return headings.get(form, "")


def latex(comparison: Comparison, published: PublishedTable | None = None) -> str:
    return latex_tables.latex(sections(comparison, published))


def csv_text(comparison: Comparison, published: PublishedTable | None = None) -> str:
    """Return full-precision numbers, one row per method and pair, and each protocol's numbers as they were printed.

    A method's rank over the pairs stands in each of its rows.
    """
    rows, ranking = comparison.rows, comparison.ranking
    ranks = {rank.method: rank for rank in ranking.ranks} if ranking else {}
    parts: list[tuple[Sequence[Column[Any]], Sequence[Any]]] = [
        (comparison_columns(comparison), rows),
        (rank_columns(ranking, comparison.contents.baseline), [ranks.get(row.method) for row in rows]),
        (published_columns(published) if published else [], rows),
    ]
    return _csv(parts)


def _csv(parts: Iterable[tuple[Sequence[Column[Any]], Sequence[Any]]]) -> str:
    fields = [
        (column.group, name, [None if item is None else value(item) for item in items])
        for columns, items in parts
        for column in columns
        for name, value in column.csv.items()
    ]
    fields.sort(key=lambda field: field[0])
    header, values = [name for _, name, _ in fields], [values for _, _, values in fields]
    return csv_lines([header, *zip(*values, strict=True)])


def csv_lines(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as CSV, the header first; see ``escape_csv``."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(map(escape_csv, row) for row in rows)
    return out.getvalue()


_STYLE = """table { border-collapse: collapse; }
th, td { padding: 0.25em 0.75em; text-align: right; border-bottom: 1px solid #8884; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }"""


def html_text(comparison: Comparison, published: PublishedTable | None = None) -> str:
    """Return a page that needs no network; every text is escaped."""
    return _html(comparison.contents.name, sections(comparison, published))


def _html(title: str, tables: Iterable[Section]) -> str:
    parts = []
    for section in tables:
        parts += [f"<h2>{escape_html(section.title)}</h2>"] if section.title else []
        parts += [_html_table(section), *(f"<p>{escape_html(n)}</p>" for n in section.remarks)]
    body = "\n".join(parts)
    return page(title, _STYLE, body)


def _html_table(section: Section) -> str:
    def cells(tag: str, texts: tuple[str, ...]) -> str:
        return "".join(f"<{tag}>{escape_html(t)}</{tag}>" for t in texts) + "</tr>"

    headers, *body = section.lines
    rows = "\n".join(
        f'<tr title="{escape_html(t)}">{cells("td", line)}' for line, t in zip(body, section.run_ids, strict=True)
    )
    return f"<table>\n<thead><tr>{cells('th', headers)}</thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


Writer = Callable[[Comparison, PublishedTable | None], str]
FORMATS: dict[str, Writer] = {"md": markdown, "tex": latex, "csv": csv_text, "html": html_text}


def fidelity_text(comparison: Comparison, form: str) -> str:
    """Return the table of the fidelity to the teacher in one of ``FORMATS``."""
    if form == "csv":
        return _csv([(fidelity_columns(comparison), comparison.rows)])
    return _text(f"{comparison.contents.name}: fidelity", fidelity_section(comparison), form)


def chosen_text(comparison: Comparison, form: str, names: Sequence[str], fidelity: bool) -> str:
    """Return the first table, or the one of the fidelity to the teacher, with some columns, see ``chosen_columns``.

    Raises:
        UserError: there is no column with such a name.
    """
    if form == "csv":
        return _csv([(_chosen(comparison, names, fidelity), comparison.rows)])
    lines = chosen_lines(comparison, names, fidelity)
    section = fidelity_section(comparison) if fidelity else next(sections(comparison, None))
    section = replace(section, lines=lines, remarks=section.remarks if fidelity else list(notes(comparison, lines[0])))
    return _text(comparison.contents.name, section, form)


def chosen_lines(comparison: Comparison, names: Sequence[str], fidelity: bool) -> Lines:
    """Return the lines of the first table, or of the one of the fidelity to the teacher, with some columns.

    Raises:
        UserError: there is no column with such a name.
    """
    return table_lines(_chosen(comparison, names, fidelity), comparison.rows)


def _chosen(comparison: Comparison, names: Sequence[str], fidelity: bool) -> list[Column[Row]]:
    columns = fidelity_columns(comparison) if fidelity else comparison_columns(comparison)
    return chosen_columns(columns, names)


def _text(title: str, section: Section, form: str) -> str:
    if form == "html":
        return _html(title, [section])
    return latex_tables.latex([section]) if form == "tex" else _markdown([section])

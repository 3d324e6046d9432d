"""A paper's table as Markdown, LaTeX, CSV or HTML. The same table gives the same bytes."""

import re
from collections.abc import Callable

from harness.errors import one_line
from harness.reporting.escape import escape_html, escape_markdown
from harness.reporting.html_page import page
from harness.reporting.paper import format
from harness.reporting.paper.format import Block, Head
from harness.reporting.paper.latex import latex
from harness.reporting.paper.table import Column, Entry, Paper, PaperLine
from harness.reporting.published.table import verdict_text
from harness.reporting.statistics import percent_interval
from harness.reporting.tables.columns import six_digits, stars
from harness.reporting.tables.formats import csv_lines, markdown_table
from harness.spec.tasks import shown


def markdown(paper: Paper) -> str:
    """Render the best bold, the second underlined and published numbers in italics: GitHub shows no colours."""
    parts = []
    for block in format.blocks(paper):
        parts += ["", f"{_markdown_name(str(block[0][1].pair))}:", ""] if format.one_pair_each(paper) else []
        lines = [("method", *(_markdown_name(_column_name(paper, column)) for _, column in block))]
        lines += [(head.name, *head.texts) for head in format.heads(paper, block) if head.name == format.SIZES]
        lines += [
            (_markdown_name(line.label), *(_markdown_cell(line.entries[i], line) for i, _ in block))
            for line in paper.lines
        ]
        parts.append(markdown_table(lines, names=1))
    parts += [f"- {escape_markdown(one_line(note))}" for note in paper.notes]
    runs = list(format.runs(paper))
    fence = "`" * (1 + max([2, *(len(ticks) for line in runs for ticks in re.findall("`+", line))]))
    parts += ["", f"<details><summary>{format.RUNS}</summary>", "", format.RUNS_NOTE, ""]
    parts += [f"{fence}text", *runs, fence, "", "</details>"]
    return "\n".join(parts) + "\n"


def _column_name(paper: Paper, column: Column) -> str:
    pair = [] if format.one_pair_each(paper) else [str(column.pair)]
    return ", ".join([*pair, *([shown(column.metric)] if len(paper.metrics) > 1 else [])])


def _markdown_name(name: str) -> str:
    return escape_markdown(name)


def _markdown_cell(entry: Entry, line: PaperLine) -> str:
    figure = {"": "{}", "best": "**{}**", "second": "<ins>{}</ins>"}[entry.place].format(format.figure(entry, line))
    published = f"_{escape_markdown(format.published(entry.published))}_" if entry.published else ""
    return " ".join(filter(None, (figure, format.marks(entry), published)))


def csv_text(paper: Paper) -> str:
    """Return one row per cell, with full-precision numbers."""
    rows = [
        _csv_row(paper, line, column, entry)
        for line in paper.lines
        for column, entry in zip(paper.columns, line.entries, strict=True)
    ]
    return csv_lines([list(rows[0]), *(row.values() for row in rows)])


def _csv_row(paper: Paper, line: PaperLine, column: Column, entry: Entry) -> dict[str, object]:
    spread, ends, published, rerun = entry.spread, percent_interval(entry.spread), entry.published, entry.rerun
    protocol = paper.sources[published.source - 1].protocol if published else None
    return {
        "sweep": paper.comparison.contents.name,
        "dataset": paper.comparison.contents.shown_dataset,
        **column.pair._asdict(),
        "method": line.label,
        "metric": column.metric,
        "mean": spread.mean if spread else None,
        "std": spread.std if spread else None,
        "n": spread.n if spread else 0,
        "ci_low": six_digits(ends.low) if ends else None,
        "ci_high": six_digits(ends.high) if ends else None,
        "place": entry.place,
        "baseline": paper.comparison.contents.baseline,
        "p_holm": six_digits(entry.tested.p_holm) if entry.tested else None,
        "significance": stars(entry.tested),
        "unlike_protocol": entry.unlike,
        "published": published.text if published else None,
        "protocol": protocol.id if protocol else None,
        "epoch": protocol.epoch if protocol else None,
        "epochs": protocol.epochs if protocol else None,
        "source": protocol.source if protocol else None,
        "difference": published.difference if published else None,
        "verdict": verdict_text(published.verdict) if published else None,
        "missing": rerun.missing if rerun else None,
        "diverged": rerun.diverged if rerun else None,
        "run_ids": " ".join(rerun.run_ids) if rerun else None,
        "command": rerun.command if rerun else None,
    }


_STYLE = """div, pre { overflow-x: auto; }
table { border-collapse: collapse; margin-bottom: 1em; }
th, td { padding: 0.25em 0.75em; text-align: left; white-space: nowrap; }
thead, tbody { border-bottom: 1px solid; }
.published { color: light-dark(#696969, #a9a9a9); }"""


def html_text(paper: Paper) -> str:
    """Return a page that needs no network; every text is escaped."""
    tables = "\n".join(_html_block(paper, block) for block in format.blocks(paper))
    notes = "\n".join(f"<p>{escape_html(note)}</p>" for note in paper.notes)
    runs = "\n".join(escape_html(line) for line in format.runs(paper))
    body = f"""{tables}
{notes}
<details>
<summary>{format.RUNS}</summary>
<p>{format.RUNS_NOTE}</p>
<pre>
{runs}
</pre>
</details>"""
    return page(paper.comparison.contents.name, _STYLE, body)


def _html_block(paper: Paper, block: Block) -> str:
    once = format.one_pair_each(paper)
    heads = [_html_head(head, once and head.of_pair) for head in format.heads(paper, block)]
    rows = [
        f'<tr><th scope="row">{escape_html(line.label)}</th>'
        + "".join(_html_cell(line.entries[i], line) for i, _ in block)
        + "</tr>"
        for line in paper.lines
    ]
    body = "\n".join(["<tbody>", rows[0], "</tbody>", "<tbody>", *rows[1:], "</tbody>"])
    return "\n".join(["<div>", "<table>", "<thead>", *heads, "</thead>", body, "</table>", "</div>"])


def _html_head(head: Head, once: bool) -> str:
    """Return a header row; with ``once``, one cell spans all columns."""
    scope = f'scope="colgroup" colspan="{len(head.texts)}"' if once else 'scope="col"'
    texts = head.texts[:1] if once else head.texts
    cells = "".join(f"<th {scope}>{escape_html(text)}</th>" for text in texts)
    return f'<tr><th scope="row">{head.name}</th>{cells}</tr>'


def _html_cell(entry: Entry, line: PaperLine) -> str:
    around = {"": "{}", "best": "<strong>{}</strong>", "second": "<u>{}</u>"}[entry.place]
    marks = format.marks(entry)
    parts = [around.format(format.figure(entry, line)) + (f"<sup>{escape_html(marks)}</sup>" if marks else "")]
    if entry.published:
        parts.append(f'<span class="published">{escape_html(format.published(entry.published))}</span>')
    behind = (" ".join(entry.rerun.run_ids), entry.rerun.command) if entry.rerun else ()
    title = "\n".join(map(escape_html, behind))
    return f'<td title="{title}">{" ".join(parts)}</td>'


FORMATS: dict[str, Callable[[Paper], str]] = {"md": markdown, "tex": latex, "csv": csv_text, "html": html_text}

"""A paper's table as Markdown, LaTeX, CSV or HTML. The same table gives the same bytes."""

import csv
import html
import io
import re
from collections.abc import Callable

from harness.errors import one_line
from harness.reporting import escape
from harness.reporting.html_page import page
from harness.reporting.paper import format
from harness.reporting.paper.format import Block
from harness.reporting.paper.latex import latex
from harness.reporting.paper.table import Column, Entry, Paper, PaperLine
from harness.reporting.statistics import interval
from harness.reporting.tables.formats import markdown_table, six_digits
from harness.reporting.tables.text import stars
from harness.spec.tasks import shown

CSV_COLUMNS = (
    "sweep", "dataset", "teacher", "student", "method", "metric", "mean", "std", "n", "ci_low", "ci_high", "place",
    "baseline", "p_holm", "significance", "unlike_protocol", "published", "protocol", "epoch", "epochs", "source",
    "difference", "verdict", "missing", "diverged", "run_ids", "command",
)  # fmt: skip


def markdown(paper: Paper) -> str:
    """Bold, underlined, published numbers in italics: GitHub's Markdown has no colours."""
    parts = []
    for block in format.blocks(paper):
        if format.one_pair_each(paper):
            parts += ["", f"{_markdown_name(_pair(block[0][1]))}:", ""]
            heads = [shown(c.metric) for _, c in block]
        else:
            heads = [_pair(c) + (f", {shown(c.metric)}" if len(paper.metrics) > 1 else "") for _, c in block]
        lines = [("method", *map(_markdown_name, heads))]
        if sizes := format.sizes(paper, block):
            lines.append(("teacher's parameters", *sizes))
        lines += [
            (_markdown_name(line.label), *(_markdown_cell(line.entries[i], line) for i, _ in block))
            for line in paper.lines
        ]
        parts.append(markdown_table(lines, names=1))
    parts += [f"- {escape.escape_markdown(one_line(note))}" for note in paper.notes]
    runs = list(format.runs(paper))
    fence = "`" * (1 + max([2, *(len(ticks) for line in runs for ticks in re.findall("`+", line))]))
    parts += ["", f"<details><summary>{format.RUNS}</summary>", "", format.RUNS_NOTE, ""]
    parts += [f"{fence}text", *runs, fence, "", "</details>"]
    return "\n".join(parts) + "\n"


def _pair(column: Column) -> str:
    return f"{column.teacher} > {column.student}"


def _markdown_name(name: str) -> str:
    return escape.escape_markdown(one_line(name))


def _markdown_cell(entry: Entry, line: PaperLine) -> str:
    figure = {"": "{}", "best": "**{}**", "second": "<ins>{}</ins>"}[entry.place].format(format.figure(entry, line))
    published = f"_{format.published(entry.quote)}_" if entry.quote else ""
    return " ".join(filter(None, (figure, format.marks(entry), published)))


def csv_text(paper: Paper) -> str:
    """One line per cell, numbers as they are."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for line in paper.lines:
        for column, entry in zip(paper.columns, line.entries, strict=True):
            writer.writerow({k: v for k, v in _csv_cell(paper, line, column, entry).items() if v is not None})
    return out.getvalue()


def _csv_cell(paper: Paper, line: PaperLine, column: Column, entry: Entry) -> dict[str, object]:
    contents, spread = paper.comparison.contents, entry.spread
    found: dict[str, object] = {"sweep": contents.name, "dataset": contents.dataset, "method": line.label}
    found |= {"teacher": column.teacher, "student": column.student, "metric": column.metric, "place": entry.place}
    found |= {"mean": spread.mean, "std": spread.std, "n": spread.n} if spread else {"n": 0}
    if ends := interval(spread):
        found |= {"ci_low": six_digits(ends.low), "ci_high": six_digits(ends.high)}
    found |= {"baseline": contents.baseline, "significance": stars(entry.tested), "unlike_protocol": entry.unlike}
    if entry.tested:
        found["p_holm"] = six_digits(entry.tested.p_holm)
    if quote := entry.quote:
        protocol = paper.sources[quote.source - 1].protocol
        found |= {"published": quote.text, "protocol": protocol.id, "source": protocol.source}
        found |= {"epoch": protocol.epoch, "epochs": protocol.epochs, "difference": quote.difference}
        found["verdict"] = quote.verdict.text if quote.verdict else "not comparable"
    if rerun := entry.rerun:
        found |= {"missing": rerun.missing, "diverged": rerun.diverged}
        found |= {"run_ids": " ".join(rerun.run_ids), "command": rerun.command}
    return found


_STYLE = """div, pre { overflow-x: auto; }
table { border-collapse: collapse; margin-bottom: 1em; }
th, td { padding: 0.25em 0.75em; text-align: left; white-space: nowrap; }
thead, tbody { border-bottom: 1px solid; }
.published { color: light-dark(#696969, #a9a9a9); }"""


def html_text(paper: Paper) -> str:
    """A page of its own, readable without a network; every text is escaped."""
    tables = "\n".join(_html_block(paper, block) for block in format.blocks(paper))
    notes = "\n".join(f"<p>{html.escape(note)}</p>" for note in paper.notes)
    runs = "\n".join(html.escape(line) for line in format.runs(paper))
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
    def head(name: str, texts: list[str], scope: str = 'scope="col"') -> str:
        cells = "".join(f"<th {scope}>{html.escape(name)}</th>" for name in texts)
        return f'<tr><th scope="row">{name}</th>{cells}</tr>'

    def of_pairs(name: str, texts: list[str]) -> str:
        if format.one_pair_each(paper):
            return head(name, texts[:1], f'scope="colgroup" colspan="{len(texts)}"')
        return head(name, texts)

    heads = [of_pairs("teacher", [c.teacher for _, c in block]), of_pairs("student", [c.student for _, c in block])]
    if sizes := format.sizes(paper, block):
        heads.append(of_pairs("teacher's parameters", sizes))
    if len(paper.metrics) > 1:
        heads.append(head("", [shown(c.metric) for _, c in block]))
    rows = [
        f'<tr><th scope="row">{html.escape(line.label)}</th>'
        + "".join(_html_cell(line.entries[i], line) for i, _ in block)
        + "</tr>"
        for line in paper.lines
    ]
    body = "\n".join(["<tbody>", rows[0], "</tbody>", "<tbody>", *rows[1:], "</tbody>"])
    return "\n".join(["<div>", "<table>", "<thead>", *heads, "</thead>", body, "</table>", "</div>"])


def _html_cell(entry: Entry, line: PaperLine) -> str:
    around = {"": "{}", "best": "<strong>{}</strong>", "second": "<u>{}</u>"}[entry.place]
    marks = format.marks(entry)
    parts = [around.format(format.figure(entry, line)) + (f"<sup>{html.escape(marks)}</sup>" if marks else "")]
    if entry.quote:
        parts.append(f'<span class="published">{html.escape(format.published(entry.quote))}</span>')
    title = f"{' '.join(entry.rerun.run_ids)}\n{entry.rerun.command}" if entry.rerun else ""
    return f'<td title="{html.escape(title)}">{" ".join(parts)}</td>'


FORMATS: dict[str, Callable[[Paper], str]] = {"md": markdown, "tex": latex, "csv": csv_text, "html": html_text}

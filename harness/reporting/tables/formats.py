"""A comparison as Markdown, LaTeX, CSV or HTML: pure functions of it and of the published numbers beside it.

The same records give the same bytes.
"""

import csv
import html
import io
from collections.abc import Callable

from harness.reporting.comparison import Comparison, Spread
from harness.reporting.escape import escape_tex
from harness.reporting.html_page import page
from harness.reporting.published.table import PublishedTable
from harness.reporting.ranking import Rank
from harness.reporting.statistics import Difference, Interval
from harness.reporting.tables.text import Lines, Section, protocol_marks, sections

Figures = tuple[str | None, ...]


def markdown(comparison: Comparison, beside: PublishedTable | None = None) -> str:
    parts = []
    for section in sections(comparison, beside):
        parts += ["", f"{section.title}:", ""] if section.title else []
        parts += [markdown_table(section.lines), *section.remarks]
    return "\n".join(parts) + "\n"


def markdown_table(lines: Lines, names: int = 2) -> str:
    """Lines as a table whose source is readable too. ``names``: columns of names, which lean left."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def line(cells: tuple[str, ...]) -> str:
        padded = (c.ljust(w) if i < names else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
        return "| " + " | ".join(padded).replace("\n", " ") + " |"

    rule = "|" + "|".join(("-" * (w + 2) if i < names else "-" * (w + 1) + ":") for i, w in enumerate(widths)) + "|"
    head, *body = (line(cells) for cells in lines)
    return "\n".join([head, rule, *body, ""])


def latex(comparison: Comparison, beside: PublishedTable | None = None) -> str:
    """Booktabs tables; needs \\usepackage{booktabs}."""
    return "\n".join(line for section in sections(comparison, beside) for line in _latex_table(section)) + "\n"


def _latex_table(section: Section) -> list[str]:
    headers, *body = section.lines
    out = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{ll{'r' * (len(headers) - 2)}}}",
        r"\toprule",
        " & ".join(escape_tex(h) for h in headers) + r" \\",
    ]
    pair = None
    for line in body:
        if line[0] != pair:
            pair = line[0]
            out.append(r"\midrule")
        out.append(" & ".join(escape_tex(t) for t in line) + r" \\")
    title = [f"{section.title}."] if section.title else []
    caption = " ".join(escape_tex(n) for n in [*title, *section.remarks])
    return [*out, r"\bottomrule", r"\end{tabular}", rf"\caption{{{caption}}}", r"\end{table}"]


def csv_text(comparison: Comparison, beside: PublishedTable | None = None) -> str:
    """Numbers as they are, one row per method and pair; of each published protocol shown, its numbers as printed.

    A method's rank over the pairs stands in each of its rows.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    spreads = ("last", "best", "to_baseline", "to_reference")
    score = comparison.contents.task.score
    columns = beside.columns if beside else ()
    writer.writerow(
        ["sweep", "dataset", "teacher", "student", "method", "baseline"]
        + [f"{s}_{score}_{part}" for s in spreads for part in ("mean", "std", "n")]
        + [f"teacher_{score}", f"student_{score}", "cost_s", "missing", "diverged", "run_ids"]
        + [f"last_{score}_ci_low", f"last_{score}_ci_high", "to_baseline_ci_low", "to_baseline_ci_high", "p", "p_holm"]
        + [f"{what}{part}" for what in ("average_rank", "p_better") for part in ("", "_ci_low", "_ci_high")]
        + ["unlike_protocol"]
        + [f"{what}_{c.protocol.id}" for c in columns for what in ("published", "difference", "verdict")]
    )
    at = {row.line: i for i, row in enumerate(beside.lines if beside else ())}
    ranks = {r.method: r for r in comparison.ranking.ranks} if comparison.ranking else {}
    marks = protocol_marks(comparison.contents)
    changes = {c.line: c.change for c in comparison.contents.recipe_changes if c.line in marks}
    for row in comparison.rows:
        values: list[object] = [comparison.contents.name, comparison.contents.dataset]
        values += [row.teacher, row.student, row.method, comparison.contents.baseline]
        for name in spreads:
            spread: Spread | None = getattr(row, name)
            values += [spread.mean, spread.std, spread.n] if spread else [None, None, 0]
        values += [row.teacher_score, row.student_score, row.cost_s, row.missing, row.diverged, " ".join(row.run_ids)]
        values += [*_ends(row.last_interval), *_tested(row.tested), *_rank(ranks.get(row.method))]
        values.append(changes.get(row.line))
        line = at.get(row.line)
        for column in columns:
            cell = column.cells[line] if line is not None else None
            verdict = cell and (cell.verdict.text if cell.verdict else "not comparable")
            values += [" / ".join(n.value for n in cell.numbers) if cell else None, cell and cell.difference, verdict]
        writer.writerow(["" if v is None else v for v in values])
    return out.getvalue()


def six_digits(value: float | None) -> str | None:
    """Six digits: the last ones of a computed probability are those of a processor and a version of scipy."""
    return None if value is None else f"{value:.6g}"


def _ends(interval: Interval | None) -> Figures:
    return (six_digits(interval.low), six_digits(interval.high)) if interval else (None, None)


def _tested(tested: Difference | None) -> Figures:
    return (*_ends(tested.interval), six_digits(tested.p), six_digits(tested.p_holm)) if tested else (None,) * 4


def _rank(rank: Rank | None) -> Figures:
    if rank is None:
        return (None,) * 6
    return (six_digits(rank.rank), *_ends(rank.rank_interval), six_digits(rank.better), *_ends(rank.better_interval))


_STYLE = """table { border-collapse: collapse; }
th, td { padding: 0.25em 0.75em; text-align: right; border-bottom: 1px solid #8884; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }"""


def html_text(comparison: Comparison, beside: PublishedTable | None = None) -> str:
    """A page of its own, readable without a network; every text is escaped."""
    parts = []
    for section in sections(comparison, beside):
        parts += [f"<h2>{html.escape(section.title)}</h2>"] if section.title else []
        parts += [_html_table(section), *(f"<p>{html.escape(n)}</p>" for n in section.remarks)]
    body = "\n".join(parts)
    return page(comparison.contents.name, _STYLE, body)


def _html_table(section: Section) -> str:
    def cells(tag: str, texts: tuple[str, ...]) -> str:
        return "".join(f"<{tag}>{html.escape(t)}</{tag}>" for t in texts) + "</tr>"

    headers, *body = section.lines
    rows = "\n".join(
        f'<tr title="{html.escape(t)}">{cells("td", line)}' for line, t in zip(body, section.run_ids, strict=True)
    )
    return f"<table>\n<thead><tr>{cells('th', headers)}</thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


FORMATS: dict[str, Callable[[Comparison, PublishedTable | None], str]] = {
    "md": markdown,
    "tex": latex,
    "csv": csv_text,
    "html": html_text,
}

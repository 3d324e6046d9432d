"""A comparison as Markdown, LaTeX, CSV or HTML: pure functions of it and of the published numbers beside it.

The same records give the same bytes.
"""

import csv
import html
import io
from collections.abc import Callable

from harness.reporting.beside import Beside, Cell
from harness.reporting.comparison import Comparison, Row, Spread

HEADERS = ("teacher > student", "method", "top-1 last", "top-1 best", "- student", "- KD", "teacher", "seeds", "s/run")
PUBLISHED = "Published numbers for these pairs, top-1 in %"
Lines = list[tuple[str, ...]]


def markdown(comparison: Comparison, beside: Beside | None = None) -> str:
    parts = [_markdown_table([HEADERS, *(_texts(row) for row in comparison.rows)]), *notes(comparison)]
    if beside:
        parts += ["", f"{PUBLISHED}:", "", _markdown_table(_beside_lines(beside)), *_beside_notes(beside)]
    return "\n".join(parts) + "\n"


def _markdown_table(lines: Lines) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def line(cells: tuple[str, ...]) -> str:
        padded = (c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
        return "| " + " | ".join(padded).replace("\n", " ") + " |"

    rule = "|" + "|".join(("-" * (w + 2) if i < 2 else "-" * (w + 1) + ":") for i, w in enumerate(widths)) + "|"
    head, *body = (line(cells) for cells in lines)
    return "\n".join([head, rule, *body, ""])


def latex(comparison: Comparison, beside: Beside | None = None) -> str:
    """Booktabs tables; needs \\usepackage{booktabs}."""
    parts = _latex_table([HEADERS, *(_texts(row) for row in comparison.rows)], notes(comparison))
    if beside:
        parts += _latex_table(_beside_lines(beside), [f"{PUBLISHED}.", *_beside_notes(beside)])
    return "\n".join(parts) + "\n"


def _latex_table(lines: Lines, remarks: list[str]) -> list[str]:
    headers, *body = lines
    out = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{ll{'r' * (len(headers) - 2)}}}",
        r"\toprule",
        " & ".join(_tex(h) for h in headers) + r" \\",
    ]
    pair = None
    for line in body:
        if line[0] != pair:
            pair = line[0]
            out.append(r"\midrule")
        out.append(" & ".join(_tex(t) for t in line) + r" \\")
    caption = " ".join(_tex(n) for n in remarks)
    return [*out, r"\bottomrule", r"\end{tabular}", rf"\caption{{{caption}}}", r"\end{table}"]


def csv_text(comparison: Comparison, beside: Beside | None = None) -> str:
    """Numbers as they are, one row per method and pair; of each published protocol shown, its numbers as printed."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    spreads = ("last", "best", "to_baseline", "to_reference")
    columns = beside.columns if beside else ()
    writer.writerow(
        ["sweep", "dataset", "teacher", "student", "method"]
        + [f"{s}_top1_{part}" for s in spreads for part in ("mean", "std", "n")]
        + ["teacher_top1", "student_top1", "cost_s", "missing", "diverged", "run_ids"]
        + [f"{what}_{c.protocol.id}" for c in columns for what in ("published", "difference")]
    )
    at = {(row.teacher, row.student, row.method): i for i, row in enumerate(beside.lines if beside else ())}
    for row in comparison.rows:
        values: list[object] = [comparison.contents.name, comparison.contents.dataset]
        values += [row.teacher, row.student, row.method]
        for name in spreads:
            spread: Spread | None = getattr(row, name)
            values += [spread.mean, spread.std, spread.n] if spread else [None, None, 0]
        values += [row.teacher_top1, row.student_top1, row.cost_s, row.missing, row.diverged, " ".join(row.run_ids)]
        line = at.get((row.teacher, row.student, row.method))
        for column in columns:
            cell = column.cells[line] if line is not None else None
            values += [" / ".join(n.value for n in cell.numbers), cell.difference] if cell else [None, None]
        writer.writerow(["" if v is None else v for v in values])
    return out.getvalue()


def html_text(comparison: Comparison, beside: Beside | None = None) -> str:
    """A page of its own, readable without a network; every text is escaped."""
    name = html.escape(comparison.contents.name)
    ids = [" ".join(row.run_ids) for row in comparison.rows]
    parts = [
        _html_table([HEADERS, *(_texts(row) for row in comparison.rows)], ids),
        *(f"<p>{html.escape(n)}</p>" for n in notes(comparison)),
    ]
    if beside:
        parts += [
            f"<h2>{html.escape(PUBLISHED)}</h2>",
            _html_table(_beside_lines(beside), [" ".join(row.run_ids) for row in beside.lines]),
            *(f"<p>{html.escape(n)}</p>" for n in _beside_notes(beside)),
        ]
    body = "\n".join(parts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{name}</title>
<style>
:root {{ color-scheme: light dark; font-family: system-ui, sans-serif; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: 0.25em 0.75em; text-align: right; border-bottom: 1px solid #8884; }}
th:nth-child(-n+2), td:nth-child(-n+2) {{ text-align: left; }}
</style>
</head>
<body>
<h1>{name}</h1>
{body}
</body>
</html>
"""


def _html_table(lines: Lines, titles: list[str]) -> str:
    def cells(tag: str, texts: tuple[str, ...]) -> str:
        return "".join(f"<{tag}>{html.escape(t)}</{tag}>" for t in texts) + "</tr>"

    headers, *body = lines
    rows = "\n".join(f'<tr title="{html.escape(t)}">{cells("td", line)}' for line, t in zip(body, titles, strict=True))
    return f"<table>\n<thead><tr>{cells('th', headers)}</thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


FORMATS: dict[str, Callable[[Comparison, Beside | None], str]] = {
    "md": markdown,
    "tex": latex,
    "csv": csv_text,
    "html": html_text,
}


_EVALUATED_ON = {"test": "test images", "validation": "held-out training images for validation, NOT the test set"}


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know to compare these numbers with others."""
    contents = comparison.contents
    epochs = " or ".join(str(e) for e in contents.epochs)
    sizes = f", {comparison.train_size:,} training images" if comparison.train_size else ""
    if comparison.evaluated_size:
        sizes += f", {comparison.evaluated_size:,} {_EVALUATED_ON[comparison.evaluated_on or 'test']}"
    found = [
        f"{contents.dataset}{sizes}, {epochs} epochs. Top-1 in %, mean ± sample std over seeds; 'last' is the last "
        f"epoch's, 'best' the best {comparison.evaluated_on or 'test'} epoch's. "
        "Differences are of the last epoch, paired by seed."
    ]
    if note := _one_line(contents.note):
        found.append(f"Note: {note}")
    if contents.recipe_changes:
        found.append(f"Trained with another recipe than the rest: {'; '.join(contents.recipe_changes)}.")
    for row in comparison.rows:
        where = f"{row.teacher} > {row.student}, {row.method}"
        if row.parameters and row.parameters[0] != row.parameters[1]:
            student, evaluated = row.parameters
            found.append(
                f"{where}: the method stays in the model: {evaluated:,} parameters, the student has {student:,}."
            )
        for text, count in row.warnings:
            found.append(f"{where}: {_one_line(text)} ({count} of {len(row.run_ids)} runs).")
        if row.missing:
            found.append(f"{where}: {row.missing} of {len(row.run_ids)} runs have no record.")
        if row.diverged:
            found.append(f"{where}: {row.diverged} of {len(row.run_ids)} runs diverged and are not in the mean.")
    return found


def _one_line(text: str) -> str:
    """An empty line would end a LaTeX caption."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _texts(row: Row) -> tuple[str, ...]:
    n = row.last.n if row.last else 0
    return (
        f"{row.teacher} > {row.student}",
        row.method,
        _spread(row.last),
        _spread(row.best),
        _spread(row.to_baseline, signed=True),
        _spread(row.to_reference, signed=True),
        "" if row.teacher_top1 is None else f"{row.teacher_top1:.2f}",
        str(n) if n == len(row.run_ids) else f"{n}/{len(row.run_ids)}",
        "" if row.cost_s is None else f"{row.cost_s:.1f}",
    )


_EPOCH = {"last": "last", "best": "best", "unknown": "last or best?"}


def _beside_lines(beside: Beside) -> Lines:
    headers = [f"{c.protocol.label}, {_EPOCH[c.protocol.epoch]} [{i}]" for i, c in enumerate(beside.columns, 1)]
    lines = [("teacher > student", "method", "ours, last [0]", *headers)]
    for i, row in enumerate(beside.lines):
        ours = f"{_spread(row.last)} ({row.last.n})" if row.last else ""
        theirs = (_cell(column.cells[i]) for column in beside.columns)
        lines.append((f"{row.teacher} > {row.student}", row.method, ours, *theirs))
    return lines


def _beside_notes(beside: Beside) -> list[str]:
    remarks = (f"[{i}] {text}" for i, text in enumerate([beside.ours, *(c.remark for c in beside.columns)]))
    return [*remarks, *([beside.rest] if beside.rest else [])]


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    numbers = " / ".join(f"{n.value} ± {n.std}" if n.std else n.value for n in cell.numbers)
    return numbers if cell.difference is None else f"{numbers} ({cell.difference:+.2f})"


def _spread(spread: Spread | None, signed: bool = False) -> str:
    if spread is None:
        return ""
    mean = f"{spread.mean:+.2f}" if signed else f"{spread.mean:.2f}"
    return mean if spread.std is None else f"{mean} ± {spread.std:.2f}"


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", ">": "$>$", "<": "$<$", "±": r"$\pm$",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in text)

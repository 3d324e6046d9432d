"""A comparison as Markdown, LaTeX, CSV or HTML: pure functions of it, so that the same records give the same bytes."""

import csv
import html
import io
from collections.abc import Callable

from harness.reporting.comparison import Comparison, Row, Spread

HEADERS = ("teacher > student", "method", "top-1 last", "top-1 best", "- student", "- KD", "teacher", "seeds", "s/run")


def markdown(comparison: Comparison) -> str:
    lines = [HEADERS, *(_texts(row) for row in comparison.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADERS))]

    def line(cells: tuple[str, ...]) -> str:
        padded = (c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
        return "| " + " | ".join(padded).replace("\n", " ") + " |"

    rule = "|" + "|".join(("-" * (w + 2) if i < 2 else "-" * (w + 1) + ":") for i, w in enumerate(widths)) + "|"
    head, *body = (line(cells) for cells in lines)
    return "\n".join([head, rule, *body, "", *notes(comparison)]) + "\n"


def latex(comparison: Comparison) -> str:
    """A booktabs table; needs \\usepackage{booktabs}."""
    out = [
        r"\begin{table}",
        r"\centering",
        r"\begin{tabular}{llrrrrrrr}",
        r"\toprule",
        " & ".join(_tex(h) for h in HEADERS) + r" \\",
    ]
    pair = None
    for row in comparison.rows:
        if (row.teacher, row.student) != pair:
            pair = (row.teacher, row.student)
            out.append(r"\midrule")
        out.append(" & ".join(_tex(t) for t in _texts(row)) + r" \\")
    caption = " ".join(_tex(n) for n in notes(comparison))
    return "\n".join([*out, r"\bottomrule", r"\end{tabular}", rf"\caption{{{caption}}}", r"\end{table}"]) + "\n"


def csv_text(comparison: Comparison) -> str:
    """Numbers as they are, one row per method and pair."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    spreads = ("last", "best", "to_baseline", "to_reference")
    writer.writerow(
        ["sweep", "dataset", "teacher", "student", "method"]
        + [f"{s}_top1_{part}" for s in spreads for part in ("mean", "std", "n")]
        + ["teacher_top1", "student_top1", "cost_s", "missing", "diverged", "run_ids"]
    )
    for row in comparison.rows:
        values: list[object] = [comparison.contents.name, comparison.contents.dataset]
        values += [row.teacher, row.student, row.method]
        for name in spreads:
            spread: Spread | None = getattr(row, name)
            values += [spread.mean, spread.std, spread.n] if spread else [None, None, 0]
        values += [row.teacher_top1, row.student_top1, row.cost_s, row.missing, row.diverged, " ".join(row.run_ids)]
        writer.writerow(["" if v is None else v for v in values])
    return out.getvalue()


def html_text(comparison: Comparison) -> str:
    """A page of its own, readable without a network; every text is escaped."""

    def cells(tag: str, texts: tuple[str, ...]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(t)}</{tag}>" for t in texts) + "</tr>"

    name = html.escape(comparison.contents.name)
    body = "\n".join(
        cells("td", _texts(row)).replace("<tr>", f'<tr title="{html.escape(" ".join(row.run_ids))}">')
        for row in comparison.rows
    )
    remarks = "\n".join(f"<p>{html.escape(n)}</p>" for n in notes(comparison))
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
<table>
<thead>{cells("th", HEADERS)}</thead>
<tbody>
{body}
</tbody>
</table>
{remarks}
</body>
</html>
"""


FORMATS: dict[str, Callable[[Comparison], str]] = {"md": markdown, "tex": latex, "csv": csv_text, "html": html_text}


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
    if note := " ".join("".join(c if c.isprintable() else " " for c in contents.note).split()):
        found.append(f"Note: {note}")  # on one line: an empty one would end a LaTeX caption
    if contents.recipe_changes:
        found.append(f"Trained with another recipe than the rest: {'; '.join(contents.recipe_changes)}.")
    for row in comparison.rows:
        where = f"{row.teacher} > {row.student}, {row.method}"
        if row.parameters and row.parameters[0] != row.parameters[1]:
            student, evaluated = row.parameters
            found.append(
                f"{where}: the method stays in the model: {evaluated:,} parameters, the student has {student:,}."
            )
        if row.missing:
            found.append(f"{where}: {row.missing} of {len(row.run_ids)} runs have no record.")
        if row.diverged:
            found.append(f"{where}: {row.diverged} of {len(row.run_ids)} runs diverged and are not in the mean.")
    return found


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

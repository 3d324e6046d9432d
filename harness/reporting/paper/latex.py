"""A paper's table as LaTeX, by booktabs."""

import re

from harness.errors import one_line
from harness.reporting.escape import escape_tex, tex_row
from harness.reporting.paper import format
from harness.reporting.paper.format import Block, Head
from harness.reporting.paper.table import Entry, Paper, PaperLine


def latex(paper: Paper) -> str:
    """Return a float to \\input, across both columns of a page where there are two."""
    label = re.sub(r"[^A-Za-z0-9]+", "-", paper.comparison.contents.name)
    first, *notes = (escape_tex(one_line(note)) for note in paper.notes)
    out = [
        r"% Needs \usepackage{booktabs,graphicx,xcolor}.",
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{{first}}}",
        rf"\label{{tab:{label}}}",
    ]
    for block in format.blocks(paper):
        out += _latex_block(paper, block)
    out += [r"\parbox{\textwidth}{\footnotesize\raggedright", *(rf"{note}\par" for note in notes), "}", r"\end{table*}"]
    out += [f"% {format.RUNS}. {format.RUNS_NOTE}", *(f"% {one}" for one in format.runs(paper))]
    return "\n".join(out) + "\n"


def _latex_block(paper: Paper, block: Block) -> list[str]:
    """Return a table that is shrunk to the page's width where it is wider."""
    halves = 2 if paper.sources else 1  # ours, and the published number
    out = [
        r"\sbox0{\small\tabcolsep=4pt\begin{tabular}{l" + (r"l@{\,}l" if paper.sources else "l") * len(block) + "}",
        r"\toprule",
        *(_latex_head(head, halves, len(paper.metrics)) for head in format.heads(paper, block)),
        r"\midrule",
    ]
    for n, line in enumerate(paper.lines):
        cells = [escape_tex(one_line(line.label))]
        for i, _ in block:
            cells += _latex_cells(line.entries[i], line)[:halves]
        out.append(tex_row(cells))
        if n == 0:
            out.append(r"\midrule")
    return [
        *out,
        r"\bottomrule",
        r"\end{tabular}}",
        r"\ifdim\wd0>\textwidth\resizebox{\textwidth}{!}{\usebox0}\else\usebox0\fi",
        r"\par\medskip",
    ]


def _latex_head(head: Head, halves: int, metrics: int) -> str:
    span = metrics if head.of_pair else 1
    texts = (escape_tex(one_line(text)) for text in head.texts[::span])
    return " & ".join([head.name, *(rf"\multicolumn{{{span * halves}}}{{c}}{{{text}}}" for text in texts)]) + r" \\"


def _latex_cells(entry: Entry, line: PaperLine) -> list[str]:
    around = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}[entry.place]
    mean, _, rest = escape_tex(format.figure(entry, line)).partition(" ")
    ours = around.format(mean) + (rf"{{\tiny\,{rest}}}" if rest else "")
    if marks := format.marks(entry):
        ours += rf"\textsuperscript{{{marks}}}"
    published = escape_tex(format.published(entry.published)) if entry.published else ""
    return [ours, rf"\textcolor{{gray}}{{\scriptsize {published}}}" if published else ""]

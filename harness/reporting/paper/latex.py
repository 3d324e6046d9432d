"""A paper's table as LaTeX, by booktabs."""

import math
import re
from collections.abc import Iterator, Sequence

from harness.errors import one_line
from harness.reporting import latex_floats
from harness.reporting.escape import escape_tex, tex_row
from harness.reporting.latex_floats import MOST_LETTERS, MOST_ROWS
from harness.reporting.paper import format
from harness.reporting.paper.format import Block, Head
from harness.reporting.paper.table import Entry, Paper, PaperLine

_SPACE = 2  # letters between columns


def latex(paper: Paper) -> str:
    r"""Return floats to \input, then comments with the runs behind each cell."""
    label = re.sub(r"[^A-Za-z0-9]+", "-", paper.comparison.contents.name)
    caption, *notes = (escape_tex(one_line(note)) for note in paper.notes)
    blocks = [_latex_block(paper, block, lines) for block in _fitting_blocks(paper) for lines in _pages(paper.lines)]
    floats = latex_floats.floats(caption, f"tab:{label}", blocks, notes)
    runs = (f"% {one}" for one in (f"{format.RUNS}. {format.RUNS_NOTE}", *format.runs(paper)))
    return "\n".join([latex_floats.document(floats), *runs]) + "\n"


def _fitting_blocks(paper: Paper) -> list[Block]:
    """Return as few blocks as the page's width allows, of about equal width."""
    for blocks in _groupings(paper):
        if all(_letters(paper, block) <= MOST_LETTERS for block in blocks):
            break
    return blocks


def _groupings(paper: Paper) -> Iterator[list[Block]]:
    """Yield the columns in blocks, narrower ones each time; at last the metrics of a pair are parted."""
    metrics = len(paper.metrics)
    for pairs in range(len(paper.columns) // metrics, 0, -1):
        yield list(format.blocks(paper, pairs * metrics))
    for parts in range(2, metrics + 1):
        width, single = math.ceil(metrics / parts), format.blocks(paper, metrics)
        yield [block[i : i + width] for block in single for i in range(0, metrics, width)]


def _letters(paper: Paper, block: Block) -> float:
    """Return the width of a block."""
    heads = list(format.heads(paper, block))
    width = float(max(len(line.label) for line in paper.lines))
    for n, (i, _) in enumerate(block):
        shared = [len(head.texts[n]) / (len(paper.metrics) if head.of_pair else 1) for head in heads]
        width += _SPACE + max(*shared, *(_entry_letters(line.entries[i], line) for line in paper.lines))
    return width


def _entry_letters(entry: Entry, line: PaperLine) -> int:
    published = format.published(entry.published) if entry.published else ""
    return len(format.figure(entry, line) + format.marks(entry) + published)


def _pages(lines: Sequence[PaperLine]) -> Iterator[Sequence[PaperLine]]:
    """Yield as many methods as fit on a page."""
    for start in range(0, len(lines), MOST_ROWS):
        yield lines[start : start + MOST_ROWS]


def _latex_block(paper: Paper, block: Block, lines: Sequence[PaperLine]) -> latex_floats.Block:
    halves = 2 if paper.sources else 1  # ours, and the published number
    heads = [_latex_head(head, halves, min(len(paper.metrics), len(block))) for head in format.heads(paper, block)]
    rows = []
    for line in lines:
        cells = [escape_tex(one_line(line.label))]
        for i, _ in block:
            cells += _latex_cells(line.entries[i], line)[:halves]
        rows += [tex_row(cells), *([r"\midrule"] if line is paper.lines[0] else [])]
    tabular = [
        r"\begin{tabular}{l" + (r"l@{\,}l" if paper.sources else "l") * len(block) + "}",
        *(r"\toprule", *heads, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"),
    ]
    return latex_floats.Block(tabular, len(heads) + len(lines), 4)


def _latex_head(head: Head, halves: int, metrics: int) -> str:
    span = metrics if head.of_pair else 1
    texts = (escape_tex(one_line(text)) for text in head.texts[::span])
    return " & ".join([head.name, *(rf"\multicolumn{{{span * halves}}}{{c}}{{{text}}}" for text in texts)]) + r" \\"


def _latex_cells(entry: Entry, line: PaperLine) -> list[str]:
    around = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}[entry.place]
    mean, _, rest = escape_tex(format.figure(entry, line)).partition(" ")
    ours = around.format(mean) + (rf"{{\scriptsize\,{rest}}}" if rest else "")
    if marks := format.marks(entry):
        ours += rf"\textsuperscript{{{escape_tex(marks)}}}"
    published = escape_tex(format.published(entry.published)) if entry.published else ""
    return [ours, rf"\textcolor{{gray}}{{\scriptsize {published}}}" if published else ""]

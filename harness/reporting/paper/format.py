"""What the formats of a paper's table share: how a cell reads, and which columns stand beside each other."""

import math
from collections.abc import Iterator

from harness.errors import one_line
from harness.reporting.paper.notes import VERDICTS
from harness.reporting.paper.published_cells import PublishedCell
from harness.reporting.paper.table import Column, Entry, Paper, PaperLine
from harness.reporting.tables.text import stars

MOST_COLUMNS = 7  # beside each other, what a page's width holds; CRD's tables have six and seven
RUNS = "Runs behind each cell, and the command that trains them"
RUNS_NOTE = (
    "A command plans the runs that stand over it and, where it is trained here, their teacher's. It trains those of "
    "which the store has no record; with --results and another folder, all. Add --data and --cluster as needed."
)

Block = list[tuple[int, Column]]  # columns beside each other, each with its position in the table


def blocks(paper: Paper) -> Iterator[Block]:
    """As few as the width allows, of about equal width; the metrics of a pair stay together."""
    columns, metrics = list(enumerate(paper.columns)), len(paper.metrics)
    pairs = len(columns) // metrics
    per_block = math.ceil(pairs / math.ceil(pairs * metrics / MOST_COLUMNS)) * metrics
    for start in range(0, len(columns), per_block):
        yield columns[start : start + per_block]


def one_pair_each(paper: Paper) -> bool:
    """Whether a block has room for one pair's metrics alone, so that the pair is told once, over them."""
    return 2 * len(paper.metrics) > MOST_COLUMNS


def figure(entry: Entry, line: PaperLine) -> str:
    """``71.98 ± 0.21 (3)``, with the number of seeds where it is not the line's."""
    spread = entry.spread
    if spread is None:
        return "–"
    std = "" if spread.std is None else f" ± {spread.std:.2f}"
    return f"{spread.mean:.2f}{std}" + ("" if spread.n == line.seeds else f" ({spread.n})")


def marks(entry: Entry) -> str:
    """``** (a)``."""
    return " ".join(filter(None, (stars(entry.tested), entry.unlike)))


def published(quote: PublishedCell) -> str:
    """``70.66 [1] ≈``."""
    return f"{quote.text} [{quote.source}]" + (f" {VERDICTS[quote.verdict.text]}" if quote.verdict else "")


def sizes(paper: Paper, block: Block) -> list[str]:
    """Of the teachers; [] where they need not be told."""
    known = [paper.sizes.get(column.teacher) for _, column in block]
    return ["" if size is None else f"{size / 1e6:.2f} M" for size in known] if any(known) else []


def runs(paper: Paper) -> Iterator[str]:
    """Two lines per cell: its names with its run ids, and its command. The metrics of a pair are of the same runs."""
    for i in range(0, len(paper.columns), len(paper.metrics)):
        pair = f"{paper.columns[i].teacher} > {paper.columns[i].student}"
        for line in paper.lines:
            if rerun := line.entries[i].rerun:
                lacking = ((rerun.missing, "without a record"), (rerun.diverged, "diverged"))
                said = ", ".join(f"{n} {what}" for n, what in lacking if n)
                yield one_line(f"{pair}, {line.label}{f' ({said})' if said else ''}: {' '.join(rerun.run_ids)}")
                yield one_line(rerun.command)

"""Texts and blocks that the formats of a paper's table share."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from harness.errors import one_line
from harness.reporting.paper.notes import VERDICTS
from harness.reporting.paper.published_cells import PublishedCell
from harness.reporting.paper.table import Column, Entry, Paper, PaperLine
from harness.reporting.tables.columns import mark, spread_text
from harness.spec.tasks import shown

MOST_COLUMNS = 7  # side by side on a page's width; CRD's tables have six and seven
SIZES = "teacher's parameters"
RUNS = "Runs behind each cell, and the command that trains them"
RUNS_NOTE = (
    "Each command trains the runs named above it, and first their teacher if it is trained here. Runs that have a "
    "record in the store are not trained again; to train all again, name an empty folder with --results. Add --data "
    "and --cluster as needed."
)

Block = list[tuple[int, Column]]  # columns side by side, each with its position in the table


class Head(NamedTuple):
    """A line over the methods: a text per column of the block."""

    name: str
    texts: list[str]
    of_pair: bool  # the same for every metric of a pair


def blocks(paper: Paper, most: int = MOST_COLUMNS) -> Iterator[Block]:
    """Yield as few blocks of ``most`` columns as hold all, of about equal width; a pair's metrics stay together."""
    columns, metrics = list(enumerate(paper.columns)), len(paper.metrics)
    pairs = len(columns) // metrics
    number = math.ceil(pairs * metrics / most)
    ends = [metrics * (pairs * (n + 1) // number) for n in range(number)]
    for start, end in pairwise([0, *ends]):
        yield columns[start:end]


def one_pair_each(paper: Paper) -> bool:
    """Return whether a block has room for the metrics of only one pair, which is then named once, over them."""
    return 2 * len(paper.metrics) > MOST_COLUMNS


def heads(paper: Paper, block: Block) -> Iterator[Head]:
    """Yield teachers, students, the teachers' sizes where they vary, and metrics where there are several."""
    columns = [column for _, column in block]
    yield Head("teacher", [c.pair.teacher for c in columns], True)
    yield Head("student", [c.pair.student for c in columns], True)
    if any(c.pair.teacher in paper.sizes for c in columns):
        yield Head(SIZES, [_size(paper.sizes.get(c.pair.teacher)) for c in columns], True)
    if len(paper.metrics) > 1:
        yield Head("", [shown(c.metric) for c in columns], False)


def _size(parameters: int | None) -> str:
    return "" if parameters is None else f"{parameters / 1e6:.2f} M"


def figure(entry: Entry, line: PaperLine) -> str:
    """Return ``71.98 ± 0.21 (3)``, with the number of seeds where it is not the line's."""
    spread = entry.spread
    if spread is None:
        return "–"
    return spread_text(spread) + ("" if spread.n == line.seeds else f" ({spread.n})")


def marks(entry: Entry) -> str:
    """Return ``** (a)``; daggers in place of stars where the method is worse than the baseline."""
    return " ".join(filter(None, (mark(entry.tested, entry.is_worse), entry.unlike)))


def published(cell: PublishedCell) -> str:
    """Return ``70.66 [1] ≈``."""
    return f"{cell.text} [{cell.source}]" + (f" {VERDICTS[cell.verdict.text]}" if cell.verdict else "")


def runs(paper: Paper) -> Iterator[str]:
    """Yield two lines per cell: its names with its run ids, and its command. A pair's metrics share their runs."""
    for i in range(0, len(paper.columns), len(paper.metrics)):
        pair = paper.columns[i].pair
        for line in paper.lines:
            if rerun := line.entries[i].rerun:
                lacking = ((rerun.missing, "without a record"), (rerun.diverged, "diverged"))
                counts = ", ".join(f"{n} {what}" for n, what in lacking if n)
                yield one_line(f"{pair}, {line.label}{f' ({counts})' if counts else ''}: {' '.join(rerun.run_ids)}")
                yield one_line(rerun.command)

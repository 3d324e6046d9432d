"""A paper's table on a terminal: methods by pairs, in blocks of as many columns as its width holds."""

from collections.abc import Iterator

from rich.text import Text

from harness.errors import printable
from harness.reporting.paper import format
from harness.reporting.paper.table import Column, Entry, Paper, PaperLine
from harness.reporting.tables.fitted_table import FittedColumn, fitted_table, wrapped
from harness.reporting.tables.terminal import BEST, TIED, title_lines
from harness.spec.tasks import shown

_STYLES = {"": "", "best": "bold", "second": "underline"}
_GAP = 2  # between columns


def paper_lines(paper: Paper, width: int) -> Iterator[Text]:
    """Yield the table and its notes. The commands that train each cell are in its other formats."""
    yield from title_lines(paper.comparison, width)
    sizes = [head for head in format.heads(paper, list(enumerate(paper.columns))) if head.name == format.SIZES]
    names = [head.name for head in sizes] + [line.label for line in paper.lines]
    methods = FittedColumn("method", [Text(printable(name)) for name in names], is_left=True)
    columns = [
        FittedColumn(
            _name(paper, column),
            [Text(head.texts[i]) for head in sizes] + [_cell(line.entries[i], line) for line in paper.lines],
        )
        for i, column in enumerate(paper.columns)
    ]
    for block in _blocks(columns, width - methods.width):
        yield Text()
        yield from fitted_table([methods, *block], {}, width).lines
    yield Text()
    for note in paper.notes:
        yield from wrapped(printable(note.replace("Bold: ", f"{BEST} and bold: ", 1)), width, style="dim")
    yield from wrapped(f"{format.RUNS}: report --paper --format md", width, style="dim")


def _blocks(columns: list[FittedColumn], room: int) -> Iterator[list[FittedColumn]]:
    """Yield columns that fit side by side, or one that does not fit alone."""
    block, left = list[FittedColumn](), room
    for column in columns:
        if block and column.width + _GAP > left:
            yield block
            block, left = [], room
        block.append(column)
        left -= column.width + _GAP
    yield block


def _name(paper: Paper, column: Column) -> str:
    pair = f"{column.pair.teacher} >{TIED}{column.pair.student}"
    metric = f" {shown(column.metric)}" if len(paper.metrics) > 1 else ""
    return printable(f"{pair}{metric}")


def _cell(entry: Entry, line: PaperLine) -> Text:
    figure = f"{BEST} " * (entry.place == "best") + format.figure(entry, line)
    published = format.published(entry.published) if entry.published else ""
    text = Text(figure, _STYLES[entry.place])
    for part in filter(None, (format.marks(entry), published)):
        text.append(f" {printable(part)}", "dim" if part == published else "")
    return text

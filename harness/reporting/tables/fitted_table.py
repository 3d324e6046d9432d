"""A table that fits a terminal's width: columns that matter less are left out, and no word is broken."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.text import Text

_GAP = "  "
_RULE = "─"


@dataclass(frozen=True)
class FittedColumn:
    """A column: its name and a text for each row, printable and with its colours."""

    name: str
    cells: Sequence[Text]
    is_left: bool = False  # aligned to the left
    importance: int | None = None  # the least important one is left out first; None: it stays
    goes_below: bool = False  # where it does not fit, its texts stand below their rows instead of nowhere

    @property
    def width(self) -> int:
        words = (cell_len(word) for word in self.name.split(" "))  # other spaces hold together what they part
        return max(0, *words, *(cell.cell_len for cell in self.cells))

    @property
    def name_lines(self) -> list[str]:
        """The name, over as few lines as its column's width allows."""
        return textwrap.wrap(self.name, self.width, break_long_words=False, break_on_hyphens=False)

    def padded(self, text: Text) -> Text:
        """Return a text with the column's width."""
        space = " " * (self.width - text.cell_len)
        return text + space if self.is_left else Text(space) + text


@dataclass(frozen=True)
class FittedTable:
    """The lines of a table, and the names of the columns that did not fit."""

    lines: list[Text]
    left_out: list[str] = field(default_factory=list)


def fitted_table(columns: Sequence[FittedColumn], heads: Mapping[int, Sequence[Text]], width: int) -> FittedTable:
    """Return a table of at most ``width`` cells where its important columns allow it.

    The first column names the rows. ``heads``: lines before rows, by the row's position.
    """
    kept, indent = _fitting(columns, width), ""
    is_stacked = _total(kept) > width  # names too long for a line with their numbers stand above these
    if is_stacked:
        indent = "    "
        kept = _fitting(columns[1:], width - len(indent))
    names: Sequence[Text | None] = columns[0].cells if is_stacked else [None] * len(columns[0].cells)
    others = [column for column in columns[is_stacked:] if column not in kept]
    below = [column for column in others if column.goes_below]
    left_out = [column.name for column in others if not column.goes_below]
    return FittedTable(list(_lines(kept, names, below, heads, width, indent)), left_out)


def _total(columns: Sequence[FittedColumn]) -> int:
    return sum(column.width for column in columns) + len(_GAP) * (len(columns) - 1)


def _fitting(columns: Sequence[FittedColumn], width: int) -> list[FittedColumn]:
    """Return the columns that stay and, of the others, the most important ones that fit beside them."""
    kept = [column for column in columns if column.importance is None]
    others = [column for column in columns if column.importance is not None]
    for other in sorted(others, key=lambda column: column.importance or 0, reverse=True):
        wider = [column for column in columns if column in kept or column is other]
        if _total(wider) <= width:
            kept = wider
    return kept


def _lines(
    columns: Sequence[FittedColumn],
    names: Sequence[Text | None],
    below: Sequence[FittedColumn],
    heads: Mapping[int, Sequence[Text]],
    width: int,
    indent: str,
) -> Iterator[Text]:
    """Yield the header and the rows. ``names``: lines before the rows, None where the row has its name itself."""
    height = max(len(column.name_lines) for column in columns)
    for i in range(height):
        texts = ([""] * (height - len(column.name_lines)) + column.name_lines for column in columns)
        yield _joined(indent, (column.padded(Text(text[i])) for column, text in zip(columns, texts, strict=True)))
    yield Text(_RULE * min(_total(columns) + len(indent), width), style="dim")
    for i, name in enumerate(names):
        yield from heads.get(i, ())
        if name is not None:
            yield name
        yield _joined(indent, (column.padded(column.cells[i]) for column in columns))
        for column in below:
            if column.cells[i].plain:
                yield from wrapped(column.cells[i].plain, width, indent="    ", style="dim")


def _joined(indent: str, cells: Iterator[Text]) -> Text:
    line = Text(indent) + Text(_GAP).join(cells)
    line.rstrip()
    return line


def wrapped(text: str, width: int, indent: str = "", style: str = "") -> Iterator[Text]:
    """Yield the lines of a text between words, the further ones indented by two spaces more."""
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    yield from (Text(line, style=style) for line in lines)

"""Published numbers beside ours: one per cell, of the first protocol that has any."""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.reporting.beside import Beside, Cell, Column
from harness.reporting.comparison import Row
from harness.reporting.published import Number, Numbers
from harness.reporting.statistics import Verdict


@dataclass(frozen=True)
class Quote:
    """What one source has published for a cell."""

    text: str  # as printed
    source: int  # of the table's, from 1 on
    difference: float | None = None  # ours minus theirs, in points, where they are comparable
    verdict: Verdict | None = None


class Quotes:
    """Those of a comparison. ``sources``: the protocols quoted, in the order of their numbers."""

    def __init__(self, beside: Beside | None, top5: Numbers):
        first: dict[tuple[str, str, str], tuple[Column, Cell]] = {}
        columns = beside.columns if beside else ()
        for column in columns:
            for row, cell in zip(beside.lines if beside else (), column.cells, strict=True):
                if cell is not None:
                    first.setdefault((row.teacher, row.student, row.method), (column, cell))
        quoted = {column.protocol for column, _ in first.values()}
        self.sources = tuple(column for column in columns if column.protocol in quoted)
        self._first, self._top5 = first, top5

    def line(self, row: Row, metric: str) -> Quote | None:
        """Of a method on a pair, in top1 or top5, both by one source."""
        found = self._numbers(row, metric)
        if found is None:
            return None
        source, cell, numbers = found
        text = " / ".join(n.value for n in numbers)
        return Quote(text, source, cell.difference, cell.verdict) if metric == "top1" else Quote(text, source)

    def teacher(self, rows: Iterable[Row], metric: str) -> Quote | None:
        """Of the teacher of a pair, whose rows these are."""
        found = [q for row in rows if (q := self._numbers(row, metric))]
        known = [(source, top) for source, _, of in found for n in of if (top := n.teacher_accuracy) is not None]
        if not known:
            return None
        source, accuracy = min(known)
        return Quote(f"{accuracy:.2f}", source)

    def _numbers(self, row: Row, metric: str) -> tuple[int, Cell, tuple[Number, ...]] | None:
        line = (row.teacher, row.student, row.method)
        if line not in self._first:
            return None
        column, cell = self._first[line]
        numbers = cell.numbers
        if metric == "top5":
            settings = [n.settings for n in cell.numbers]
            of_protocol = (n for n in self._top5.get(line, ()) if n.protocol == column.protocol.id)
            numbers = tuple(n for n in of_protocol if n.settings in settings)
        return (self.sources.index(column) + 1, cell, numbers) if numbers else None

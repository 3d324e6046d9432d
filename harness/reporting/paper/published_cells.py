"""Published numbers beside ours: one per cell, of the first protocol that has any.

Detectors that were trained in unlike frameworks are never in one column: those of a pair are of the framework that has
numbers for most of its lines.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.reporting.comparison import Row
from harness.reporting.published.numbers import Number, Numbers
from harness.reporting.published.table import Cell, Column, PublishedTable
from harness.reporting.statistics import Verdict


@dataclass(frozen=True)
class PublishedCell:
    """What one source has published for a cell."""

    text: str  # as printed
    source: int  # of the table's, from 1 on
    difference: float | None = None  # ours minus theirs, in points, where they are comparable
    verdict: Verdict | None = None


class PublishedCells:
    """Those of a comparison. ``sources``: the protocols quoted, in the order of their numbers."""

    def __init__(self, beside: PublishedTable | None, numbers: Mapping[str, Numbers]):
        """``numbers``: of every metric."""
        columns = beside.columns if beside else ()
        of_pair: dict[
            tuple[str, str], dict[str, dict[str, tuple[Column, Cell]]]
        ] = {}  # framework -> method -> the first
        for column in columns:
            for row, cell in zip(beside.lines if beside else (), column.cells, strict=True):
                if cell is not None:
                    frameworks = of_pair.setdefault((row.teacher, row.student), {})
                    frameworks.setdefault(column.protocol.framework, {}).setdefault(row.method, (column, cell))
        first = {
            (*pair, method): found
            for pair, frameworks in of_pair.items()
            for method, found in max(frameworks.values(), key=len).items()
        }
        quoted = {column.protocol for column, _ in first.values()}
        self.sources = tuple(column for column in columns if column.protocol in quoted)
        self._first, self._numbers, self._score = first, numbers, beside.score if beside else ""

    def line(self, row: Row, metric: str) -> PublishedCell | None:
        """Of a method on a pair, in any metric, all by one source."""
        found = self._found(row, metric)
        if found is None:
            return None
        source, cell, numbers = found
        text = " / ".join(n.value for n in numbers)
        return (
            PublishedCell(text, source, cell.difference, cell.verdict)
            if metric == self._score
            else PublishedCell(text, source)
        )

    def teacher(self, rows: Iterable[Row], metric: str) -> PublishedCell | None:
        """Of the teacher of a pair, whose rows these are."""
        found = [q for row in rows if (q := self._found(row, metric))]
        known = [(source, top) for source, _, of in found for n in of if (top := n.teacher_accuracy) is not None]
        if not known:
            return None
        source, accuracy = min(known)
        return PublishedCell(f"{accuracy:.2f}", source)

    def _found(self, row: Row, metric: str) -> tuple[int, Cell, tuple[Number, ...]] | None:
        line = row.line
        if line not in self._first:
            return None
        column, cell = self._first[line]
        numbers = cell.numbers
        if metric != self._score:
            settings = [n.settings for n in cell.numbers]
            of_protocol = (n for n in self._numbers[metric].get(line, ()) if n.protocol == column.protocol.id)
            numbers = tuple(n for n in of_protocol if n.settings in settings)
        return (self.sources.index(column) + 1, cell, numbers) if numbers else None

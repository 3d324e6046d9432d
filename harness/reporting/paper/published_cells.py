"""Published numbers next to ours: one per cell, of the first protocol that has any.

Detectors that were trained in different frameworks are never in one column: a pair's numbers come from the framework
that has numbers for most of its lines.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.reporting.comparison import Row
from harness.reporting.published.numbers import Number, Numbers
from harness.reporting.published.table import ProtocolColumn, PublishedTable
from harness.reporting.statistics import Verdict
from harness.spec.lines import Line, PairNames


@dataclass(frozen=True)
class PublishedCell:
    """A number that one source has published for a cell."""

    text: str  # as printed
    source: int  # of the table's, from 1 on
    difference: float | None = None  # ours minus theirs, in points, where they are comparable
    verdict: Verdict | None = None


class PublishedCells:
    """The published numbers of a comparison's cells. ``sources``: their protocols, in the order of their marks."""

    def __init__(self, published: PublishedTable | None, numbers: Mapping[str, Numbers]):
        """Choose the protocol of each line. ``numbers``: metric -> the published numbers."""
        columns = published.columns if published else ()
        by_framework: dict[PairNames, dict[str, dict[Line, ProtocolColumn]]] = {}
        for column in columns:
            for line in column.cells:
                frameworks = by_framework.setdefault(line.pair, {})
                frameworks.setdefault(column.protocol.framework, {}).setdefault(line, column)
        self._columns = {
            line: column
            for frameworks in by_framework.values()
            for line, column in max(frameworks.values(), key=len).items()
        }
        used = {column.protocol for column in self._columns.values()}
        self.sources = tuple(column for column in columns if column.protocol in used)
        self._numbers, self._score = numbers, published.score if published else ""

    def method(self, row: Row, metric: str) -> PublishedCell | None:
        """Return the numbers of a method on a pair. Those of every metric are of one source."""
        numbers = self._numbers_of(row.line, metric)
        if not numbers:
            return None
        column = self._columns[row.line]
        text, source = " / ".join(n.value for n in numbers), self._source(row.line)
        if metric != self._score:
            return PublishedCell(text, source)
        cell = column.cells[row.line]
        return PublishedCell(text, source, cell.difference, cell.verdict)

    def teacher(self, rows: Iterable[Row], metric: str) -> PublishedCell | None:
        """Return the accuracy of a pair's teacher. ``rows``: those of the pair."""
        known = [
            (self._source(row.line), number.teacher_accuracy)
            for row in rows
            for number in self._numbers_of(row.line, metric)
            if number.teacher_accuracy is not None
        ]
        if not known:
            return None
        source, accuracy = min(known)
        return PublishedCell(f"{accuracy:.2f}", source)

    def _source(self, line: Line) -> int:
        return self.sources.index(self._columns[line]) + 1

    def _numbers_of(self, line: Line, metric: str) -> Sequence[Number]:
        if line not in self._columns:
            return ()
        column = self._columns[line]
        numbers = column.cells[line].numbers
        if metric == self._score:
            return numbers
        settings = [n.settings for n in numbers]
        of_protocol = (n for n in self._numbers[metric].get(line, ()) if n.protocol == column.protocol.id)
        return [n for n in of_protocol if n.settings in settings]

"""Aggregation over seeds: the runs of one line, as values by seed and as a mean with its deviation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.reporting.statistics import Spread


@dataclass(frozen=True)
class SeedRuns:
    """The runs of one line that have a record."""

    columns: Mapping[str, Sequence[Any]]  # the records' columns, a value per record
    rows: Sequence[int]  # the runs' positions in the columns
    seeds: Sequence[int]  # of the same length

    def values(self, column: str) -> list[Any]:
        values = self.columns[column]
        return [values[i] for i in self.rows]

    def by_seed(self, column: str) -> dict[int, float]:
        """Return seed -> value. Diverged runs are left out: they have a best epoch, but no last one."""
        values, status = self.columns[column], self.columns["status"]
        return {
            seed: v
            for seed, i in zip(self.seeds, self.rows, strict=True)
            if (v := values[i]) is not None and status[i] != "diverged"
        }

    def spread(self, column: str) -> Spread | None:
        return Spread.of(self.by_seed(column).values())

    def first(self, column: str) -> float | None:
        """Return the value of the first run that has one."""
        return first(self.values(column))

    @property
    def diverged(self) -> int:
        return self.values("status").count("diverged")


def first(values: Iterable[float | None]) -> float | None:
    """Return the first value that is not None."""
    return next((value for value in values if value is not None), None)

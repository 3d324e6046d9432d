"""The runs that are in no mean of a comparison, as notes with counts."""

from collections.abc import Iterator, Mapping

from harness.phrases import plural, some
from harness.reporting.comparison import Comparison
from harness.spec.lines import Line, grouped


def absence_notes(comparison: Comparison, told: Mapping[Line, int]) -> Iterator[str]:
    """Yield a note on the runs without a record, and one on those that diverged. ``told``: runs named elsewhere."""
    without = {row.line: row.missing - told.get(row.line, 0) for row in comparison.rows}
    if missing := {line: count for line, count in without.items() if count > 0}:
        yield f"Without a record: {counted_runs(comparison, missing)}."
    if diverged := {row.line: row.diverged for row in comparison.rows if row.diverged}:
        yield f"Diverged, and in no mean: {counted_runs(comparison, diverged)}."


def counted_runs(comparison: Comparison, counts: Mapping[Line, int]) -> str:
    """Return ``4 of 9 runs: kd (1 of 3), crd``; with pairs, where they differ; without names where all are meant."""
    sizes = {row.line: len(row.run_ids) for row in comparison.rows}
    once = {tuple(row.run_ids): counts.get(row.line, 0) for row in comparison.rows}  # pairs share their student's runs
    total = f"{sum(once.values()):,} of {plural(sum(map(len, once)), 'run')}"
    if counts == sizes:
        return total
    pairs = grouped(sizes, lambda line: line.pair)
    names = {
        pair: [_with_count(line, counts[line], sizes[line]) for line in lines if line in counts]
        for pair, lines in pairs.items()
    }
    first, *others = names.values()
    if all(other == first for other in others):
        return f"{total}: {some(first, 10)}"
    whole = {pair for pair, lines in pairs.items() if all(counts.get(line) == sizes[line] for line in lines)}
    parts = [str(pair) if pair in whole else f"{pair}: {some(own, 10)}" for pair, own in names.items() if own]
    return f"{total}: {some(parts, 5, '; ')}"


def _with_count(line: Line, count: int, size: int) -> str:
    return line.method if count == size else f"{line.method} ({count} of {size})"

"""Pairwise tests of a pair's methods, and the seeds that undecided ones need: ``sweep --until-decided``.

Testing again after each round of seeds gives chance several tries. So the number of looks is fixed beforehand, and each
has an error of 5 % divided by that number (Bonferroni): all of them together err with at most 5 %.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice, pairwise

from harness.reporting import statistics
from harness.reporting.comparison import Comparison, Row
from harness.reporting.statistics import ERROR, Spread
from harness.reporting.tables.columns import spread_text
from harness.spec.lines import Line, PairNames, grouped

GROWTH = 1.5  # factor of the number of seeds from look to look


@dataclass(frozen=True)
class PairwiseTest:
    """Two methods of a pair, by their last-epoch score at the same seeds."""

    teacher: str
    student: str
    first: str
    second: str
    difference: Spread | None  # first minus second
    p: float  # of the test that they differ; both are Holm-corrected over the pair's tests
    p_equal: float  # of the test that they are equal within the margin; 1 where nothing can be tested
    decided: bool
    seeds_needed: int | None  # total, to find this difference; None: no estimate

    def __str__(self) -> str:
        by = spread_text(self.difference, signed=True) or "no difference known"
        return f"{PairNames(self.teacher, self.student)}: {self.first} - {self.second}: {by}, p {self.p:.2g}"


def looks(listed: int, limit: int) -> tuple[int, ...]:
    """Return the numbers of seeds at which methods are tested, from the listed ones up to the limit."""
    sizes = [listed]
    while sizes[-1] < limit:
        sizes.append(min(limit, math.ceil(GROWTH * sizes[-1])))
    return tuple(sizes)


def pairwise_tests(comparison: Comparison, against: str | None, sizes: Sequence[int]) -> list[PairwiseTest]:
    """Test each method against its neighbour in rank on the pair or, where it is named, against ``against``."""
    pairs = grouped((row for row in comparison.rows if row.last), lambda row: row.pair)
    return [test for rows in pairs.values() for test in _pair_tests(rows, against, comparison, len(sizes))]


def _pair_tests(rows: list[Row], against: str | None, comparison: Comparison, number: int) -> Iterable[PairwiseTest]:
    ranked = sorted(rows, key=lambda row: row.last.mean if row.last else 0.0, reverse=True)
    if against is None:
        matched = list(pairwise(ranked))
    else:
        matched = [(row, other) for other in rows if other.method == against for row in ranked if row is not other]
    # Entries of one science are the same runs: there is nothing to compare.
    matched = [(a, b) for a, b in matched if not set(a.run_ids) & set(b.run_ids)]
    spreads = [Spread.paired(a.by_seed, b.by_seed) for a, b in matched]
    margin, level = comparison.contents.margin, ERROR / number
    differ = statistics.holm([_or_one(statistics.p_value(s)) for s in spreads])
    equal = statistics.holm([_or_one(statistics.p_equivalent(s, margin)) for s in spreads])
    for (a, b), spread, p, p_equal in zip(matched, spreads, differ, equal, strict=True):
        decided = min(p, p_equal) < level
        needed = None if decided else statistics.seeds_needed(spread, level / len(matched))
        yield PairwiseTest(a.teacher, a.student, a.method, b.method, spread, p, p_equal, decided, needed)


def _or_one(p: float | None) -> float:
    return 1.0 if p is None else p


def further_seeds(
    comparison: Comparison, tests: Iterable[PairwiseTest], listed: Sequence[int], sizes: Sequence[int]
) -> dict[Line, list[int]]:
    """Return the seeds that undecided tests lack for their next look, by line; the baseline gets them too.

    They are the smallest that the sweep does not list. A test that has had its last look gets none.
    """
    seeds = {line: {cell.seed for cell in cells} for line, cells in comparison.contents.lines().items()}
    missing: dict[Line, set[int]] = {}
    for test in tests:
        pair = (test.teacher, test.student)
        have = len(seeds[Line(*pair, test.first)] & seeds[Line(*pair, test.second)])
        size = next((n for n in sizes if n > have), None)
        if test.decided or size is None:
            continue
        next_seeds = set(islice(chain(listed, (i for i in count() if i not in listed)), size))
        for method in (comparison.contents.baseline, test.first, test.second):
            if (line := Line(*pair, method)) in seeds and (lacking := next_seeds - seeds[line]):
                missing.setdefault(line, set()).update(lacking)
    return {line: sorted(lacking) for line, lacking in missing.items()}

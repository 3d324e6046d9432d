"""Our statistics against scipy, statsmodels and rliable, and their properties."""

import statistics
from typing import Any
from unittest import mock

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from harness.reporting import statistics as ours
from harness.reporting.ranking import Rank, Ranking, Scores, ranking
from harness.reporting.statistics import Spread

TOP1 = st.integers(0, 10_000).map(lambda n: n / 100)
SAMPLES = st.lists(TOP1, min_size=2, max_size=12).filter(lambda v: len(set(v)) > 1)
PS = st.lists(st.floats(0, 1), max_size=20)


def spread(values: Any) -> Spread:
    spread_of_values = Spread.of(values)
    assert spread_of_values is not None
    return spread_of_values


# one mean ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e9, 1e9) | st.floats(-1e-9, 1e-9) | TOP1, min_size=2, max_size=12))
def test_deviations_are_pythons_to_the_last_bit(values: list[float]) -> None:
    assert spread(values).std == statistics.stdev(values)


def test_deviations_are_rounded_once() -> None:
    """Some of the many values lie next to the middle between two floats."""
    for values in np.random.RandomState(0).normal(70, 1, (10_000, 3)).tolist():
        assert spread(values).std == statistics.stdev(values)


@given(SAMPLES, st.sampled_from([0.05, 0.1]))
def test_intervals_are_scipys(values: list[float], error: float) -> None:
    interval = ours.interval(spread(values), error)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(1 - error)
    assert interval and (interval.low, interval.high) == pytest.approx(
        (expected.low, expected.high), rel=1e-9, abs=1e-9
    )


@given(st.lists(st.tuples(TOP1, TOP1), min_size=2, max_size=12))
def test_the_paired_test_is_scipys(both: list[tuple[float, float]]) -> None:
    values, others = zip(*both, strict=True)
    assume(np.std(np.subtract(values, others)) > 1e-6)
    p = ours.p_value(Spread.of(a - b for a, b in zip(values, others, strict=True)))
    assert p == pytest.approx(scipy.stats.ttest_rel(values, others).pvalue, rel=1e-6)


@given(SAMPLES, st.floats(0.01, 100))
def test_equivalence_is_statsmodels(values: list[float], margin: float) -> None:
    centred = [v - 50 for v in values]
    p, _, _ = DescrStatsW(centred).ttost_mean(-margin, margin)
    assert ours.p_equivalent(spread(centred), margin) == pytest.approx(p, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("values", [[], [70.0], [70.1, 70.1, 70.1], [0.1 + 0.2, 0.3]])
def test_nothing_is_tested_where_nothing_varies(values: list[float]) -> None:
    spread_of_values = Spread.of(values)
    assert ours.interval(spread_of_values) is None and ours.p_value(spread_of_values) is None
    assert ours.p_equivalent(spread_of_values, 0.5) is None and ours.seeds_needed(spread_of_values) is None


def test_intervals_cover_at_their_rate() -> None:
    draws = np.random.RandomState(1).normal(70, 0.3, (4000, 3))
    intervals = [ours.interval(spread(d)) for d in draws.tolist()]
    covered = np.mean([i is not None and i.low <= 70 <= i.high for i in intervals])
    assert covered == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


# several ------------------------------------------------------------------------------------------------------------


@given(PS)
def test_holm_is_statsmodels(ps: list[float]) -> None:
    with mock.patch("gc.collect"):  # statsmodels 0.14 calls it each time
        theirs = list(multipletests(ps, method="holm")[1]) if ps else []
    assert ours.holm(ps) == pytest.approx(theirs)


@given(PS)
def test_holm_is_monotone_and_never_below_the_raw_p(ps: list[float]) -> None:
    corrected = ours.holm(ps)
    assert all(p <= c <= 1 for p, c in zip(ps, corrected, strict=True))
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    assert [corrected[i] for i in order] == sorted(corrected)


@given(st.lists(st.none() | SAMPLES, max_size=6))
def test_differences_are_corrected_over_those_that_can_be_tested(samples: list[list[float] | None]) -> None:
    spreads = [Spread.of(s) if s else None for s in samples]
    differences = ours.differences(spreads)
    assert [d is None for d in differences] == [s is None for s in spreads]
    tested = [d for d in differences if d]
    assert [d.p_holm for d in tested] == ours.holm([d.p for d in tested])


# power ---------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.floats(0.1, 5), st.sampled_from([0.05, 0.0125, 0.05 / 12]))
def test_seeds_needed_are_statsmodels(effect: float, error: float) -> None:
    def power(n: int) -> float:
        return float(TTestPower().power(effect, n, error / 2, alternative="larger"))

    n = ours.seeds_needed(Spread(effect, 1.0, 3), error)
    assert n and power(n) >= ours.POWER - 1e-9
    assert n == 2 or power(n - 1) < ours.POWER + 1e-9


def test_no_estimate_of_seeds_for_hardly_any_difference() -> None:
    assert ours.seeds_needed(Spread(0.0, 1.0, 3)) is None
    assert ours.seeds_needed(Spread(1e-3, 1.0, 3)) is None, "more than a sweep may have"


# verdicts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours_", "published", "expected"),
    [
        ((70.0, 70.1, 69.9), 70.05, "reproduced"),
        ((70.0, 70.1, 69.9), 71.0, "not reproduced"),
        ((70.0, 70.1, 69.9), 69.0, "not reproduced"),
        ((70.0, 70.1, 69.9), 70.5, "undecided"),
        ((69.0, 70.0, 71.0), 70.0, "undecided"),
        ((70.0,), 70.0, "undecided"),
        ((70.0, 70.0, 70.0), 70.0, "undecided"),
    ],
)
def test_verdicts(ours_: tuple[float, ...], published: float, expected: str) -> None:
    assert ours.verdict(spread(ours_), published, 0.5).text == expected


@given(SAMPLES, TOP1, st.floats(0.01, 20))
def test_reproduced_is_the_equivalence_test(values: list[float], published: float, margin: float) -> None:
    p, _, _ = DescrStatsW([v - published for v in values]).ttost_mean(-margin, margin)
    assume(abs(p - 0.05) > 1e-6)
    verdict = ours.verdict(spread(values), published, margin)
    assert (verdict.text == "reproduced") == (p < 0.05)
    if verdict.text == "not reproduced":
        assert abs(spread(values).mean - published) > margin


# ranks --------------------------------------------------------------------------------------------------------------

# Three pairs, five seeds; of rliable 1.2.0: get_interval_estimates(probability_of_improvement, reps=50000).
A = ((71.18, 70.9, 70.64, 70.87, 70.86), (70.87, 71.04, 70.76, 70.52, 71.24), (71.97, 71.63, 71.08, 70.92, 70.33))
B = ((70.52, 70.2, 70.46, 71.2, 70.65), (71.26, 71.06, 70.45, 71.08, 70.8), (71.54, 70.41, 70.63, 70.82, 70.76))
RLIABLE = (0.6266666667, 0.4133333333, 0.8266666667)
SHIFTED = (0.32, 0.84)  # of two equal pairs 1 to 5 against 0.5 to 4.5


def ranked(scores: Scores, baseline: str = "student") -> tuple[Ranking, dict[str, Rank]]:
    ranks = ranking(scores, baseline)
    assert ranks is not None
    return ranks, {r.method: r for r in ranks.ranks}


def test_probability_of_improvement_is_rliables() -> None:
    _, by = ranked({i: {"a": a, "b": b} for i, (a, b) in enumerate(zip(A, B, strict=True))}, "b")
    better, interval = by["a"].better, by["a"].better_interval
    assert better == pytest.approx(RLIABLE[0]) and by["b"].better is None
    assert interval and (interval.low, interval.high) == pytest.approx(RLIABLE[1:], abs=0.021)
    u = [scipy.stats.mannwhitneyu(a, b).statistic / 25 for a, b in zip(A, B, strict=True)]
    assert better == pytest.approx(np.mean(u))


def test_seeds_are_drawn_for_each_method_on_its_own() -> None:
    """Seeds are drawn as in rliable; the same seeds for both methods would give [0.62, 0.76]."""
    a, b = [1.0, 2.0, 3.0, 4.0, 5.0], [0.5, 1.5, 2.5, 3.5, 4.5]
    _, by = ranked({0: {"a": a, "b": b}, 1: {"a": a, "b": b}}, "b")
    interval = by["a"].better_interval
    assert by["a"].better == pytest.approx(0.6)
    assert interval and (interval.low, interval.high) == pytest.approx(SHIFTED, abs=0.03)


def test_rank_intervals_are_scipys_bootstrap() -> None:
    _, by = ranked({i: {"a": a, "b": b} for i, (a, b) in enumerate(zip(A, B, strict=True))}, "b")

    def average_rank(*samples: Any) -> float:
        return float(np.mean([1.5 + 0.5 * np.sign(np.mean(b) - np.mean(a)) for a, b in zip(*samples, strict=True)]))

    def of_six(*six: Any) -> float:
        return average_rank(six[:3], six[3:])

    assert by["a"].rank == pytest.approx(of_six(*A, *B))
    expected = scipy.stats.bootstrap(
        (*A, *B), of_six, vectorized=False, method="percentile", n_resamples=4000, random_state=np.random.RandomState(3)
    ).confidence_interval
    interval = by["a"].rank_interval
    assert interval and (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


SCORES = st.dictionaries(
    st.integers(0, 20),
    st.fixed_dictionaries({m: st.lists(TOP1, min_size=1, max_size=4) for m in ("student", "kd", "crd")}),
    min_size=2,
    max_size=4,
)


@settings(deadline=None, max_examples=25)
@given(SCORES)
def test_ranks_and_probabilities_add_up(scores: dict[int, dict[str, list[float]]]) -> None:
    ranks, by = ranked(scores)
    assert sum(r.rank for r in ranks.ranks) == pytest.approx(6)
    expected = np.mean([scipy.stats.rankdata([-np.mean(v[m]) for m in by]) for v in scores.values()], axis=0)
    assert [r.rank for r in by.values()] == pytest.approx(list(expected))
    _, turned = ranked(scores, "kd")
    forth, back = by["kd"].better, turned["student"].better
    assert forth is not None and back is not None and forth + back == pytest.approx(1)
    for r in ranks.ranks:
        few = any(len(v[r.method]) < 3 for v in scores.values())
        assert (r.rank_interval is None) == few
        if r.rank_interval:
            assert 1 <= r.rank_interval.low <= r.rank_interval.high <= 3
    assert ranking(scores, "student") == ranks, "the same every time"


def test_methods_without_a_result_somewhere_are_not_ranked() -> None:
    scores = {1: {"student": [1.0], "kd": [2.0], "crd": [3.0]}, 2: {"student": [1.0], "kd": [2.0], "crd": []}, 3: {}}
    ranks, by = ranked(scores)
    assert list(by) == ["kd", "student"] and ranks.left_out == ("crd",) and ranks.pairs == 2
    assert ranking({1: scores[1]}, "student") is None, "one pair has no average"
    _, by = ranked(scores, "none")
    assert all(r.better is None for r in by.values())

"""Decided and open comparisons, and the methods that get further seeds."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

from harness.reporting import pairwise
from harness.reporting import statistics as ours
from harness.reporting.statistics import Spread
from tests.support.comparisons import compared

CLOSE = {"student": (60.0, 60.6, 60.1), "kd": (70.0, 70.9, 70.2), "crd": (70.3, 70.4, 70.1)}


@pytest.mark.parametrize(
    ("listed", "limit", "expected"),
    [(3, 10, (3, 5, 8, 10)), (2, 4, (2, 3, 4)), (1, 3, (1, 2, 3)), (5, 6, (5, 6)), (3, 4, (3, 4))],
)
def test_the_number_of_looks_is_fixed_beforehand(listed: int, limit: int, expected: tuple[int, ...]) -> None:
    assert pairwise.looks(listed, limit) == expected


def test_neighbours_in_rank_are_compared_and_only_the_open_get_seeds() -> None:
    comparison = compared(CLOSE)
    sizes = pairwise.looks(3, 10)
    one, two = pairwise.pairwise_tests(comparison, None, sizes)
    assert (one.first, one.second, two.first, two.second) == ("kd", "crd", "crd", "student")
    values = np.array(list(CLOSE.values()))
    p = [scipy.stats.ttest_rel(*values[[i, j]]).pvalue for i, j in ((1, 2), (2, 0))]
    assert [one.p, two.p] == pytest.approx(list(multipletests(p, method="holm")[1]))
    assert two.decided and not one.decided and one.seeds_needed and one.seeds_needed > 3
    further = pairwise.further_seeds(comparison, [one, two], (0, 1, 2), sizes)
    assert further == {("t", "s", m): [3, 4] for m in CLOSE}, "the baseline stays paired"


def test_an_undecided_pair_adds_no_seeds_to_decided_methods() -> None:
    tops = {**CLOSE, "rekd": (80.0, 80.1, 80.05), "student": (50.0, 50.1, 50.2)}
    comparison = compared(tops, baseline="kd")
    sizes = pairwise.looks(3, 4)
    all_ = pairwise.pairwise_tests(comparison, None, sizes)
    assert {frozenset((c.first, c.second)): c.decided for c in all_} == {
        frozenset(("rekd", "kd")): True,
        frozenset(("kd", "crd")): False,
        frozenset(("crd", "student")): True,
    }
    assert set(pairwise.further_seeds(comparison, all_, (0, 1, 2), sizes)) == {("t", "s", "kd"), ("t", "s", "crd")}


def test_against_a_baseline_every_method_is_compared_with_it() -> None:
    comparison = pairwise.pairwise_tests(compared(CLOSE), "student", (3,))
    assert [(c.first, c.second) for c in comparison] == [("kd", "student"), ("crd", "student")]
    assert all(c.decided for c in comparison)


def test_equal_within_the_margin_is_decided() -> None:
    tops = {"kd": (70.0, 70.1, 70.2, 70.3), "crd": (70.01, 70.08, 70.21, 70.29)}
    (contest,) = pairwise.pairwise_tests(compared(tops), None, (4,))
    assert contest.decided and contest.p > 0.5 > 0.01 > contest.p_equal
    (contest,) = pairwise.pairwise_tests(compared(tops, margin=0.001), None, (4,))
    assert not contest.decided


def test_each_look_tests_at_its_share() -> None:
    comparison = compared({"crd": (70.0, 70.5, 71.0), "kd": (71.0, 71.3, 71.5)}, margin=0.0)
    (once,), (of_four,) = (
        pairwise.pairwise_tests(comparison, None, (3,)),
        pairwise.pairwise_tests(comparison, None, (3, 5, 8, 10)),
    )
    assert 0.05 / 4 < once.p < 0.05 and once.decided and not of_four.decided
    assert of_four.seeds_needed and of_four.seeds_needed > 3


def test_after_the_last_look_nothing_is_added() -> None:
    comparison = compared(CLOSE)
    open_ = pairwise.pairwise_tests(comparison, None, (3,))
    assert pairwise.further_seeds(comparison, open_, (0, 1, 2), (2, 3)) == {}


def test_entries_of_one_science_are_not_compared() -> None:
    comparison = compared({"kd": (70.0, 71.0), "twin": (70.0, 71.0)})
    same = [replace(r, run_ids=("kd-0", "kd-1")) for r in comparison.rows]
    assert pairwise.pairwise_tests(replace(comparison, rows=tuple(same)), None, (2,)) == []


def test_looking_again_and_again_errs_as_seldom_as_promised() -> None:
    """Equal methods are declared different at some look in at most 5 % of sweeps."""
    sizes = pairwise.looks(3, 10)
    wrong = naive = 0
    sweeps = np.random.RandomState(7).normal(0, 0.3, (2000, sizes[-1]))
    for differences in sweeps.tolist():
        ps = [ours.p_value(Spread.of(differences[:n])) for n in sizes]
        wrong += any(p is not None and p < ours.ERROR / len(sizes) for p in ps)
        naive += any(p is not None and p < ours.ERROR for p in ps)
    assert wrong / len(sweeps) <= 0.05 < naive / len(sweeps)

"""Our statistics against scipy, statsmodels and rliable; what must hold of them; what the tables print of them."""

import csv
import io
import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from harness.planning import plan_sweep
from harness.reporting import comparison, contests, publish, render, sections
from harness.reporting import statistics as ours
from harness.reporting.comparison import Comparison
from harness.reporting.ranking import Rank, Ranking, Scores, ranking
from harness.reporting.statistics import Spread
from harness.spec import identity
from harness.spec.expand import Cell
from harness.store import records
from tests.commands import command, process
from tests.unit.test_reporting import contents, row, table

TOP1 = st.integers(0, 10_000).map(lambda n: n / 100)
SAMPLES = st.lists(TOP1, min_size=2, max_size=12).filter(lambda v: len(set(v)) > 1)
PS = st.lists(st.floats(0, 1), max_size=20)


def spread(values: Any) -> Spread:
    found = Spread.of(values)
    assert found is not None
    return found


# one mean ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e9, 1e9) | st.floats(-1e-9, 1e-9) | TOP1, min_size=2, max_size=12))
def test_deviations_are_pythons_to_the_last_bit(values: list[float]) -> None:
    assert spread(values).std == statistics.stdev(values)


def test_deviations_are_rounded_once() -> None:
    """Of so many some lie next to the middle between two numbers."""
    for values in np.random.RandomState(0).normal(70, 1, (10_000, 3)).tolist():
        assert spread(values).std == statistics.stdev(values)


@given(SAMPLES, st.sampled_from([0.05, 0.1]))
def test_intervals_are_scipys(values: list[float], error: float) -> None:
    found = ours.interval(spread(values), error)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(1 - error)
    assert found and (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-9)


@given(st.lists(st.tuples(TOP1, TOP1), min_size=2, max_size=12))
def test_the_paired_test_is_scipys(both: list[tuple[float, float]]) -> None:
    values, others = zip(*both, strict=True)
    assume(np.std(np.subtract(values, others)) > 1e-6)
    found = ours.p_value(Spread.of(a - b for a, b in zip(values, others, strict=True)))
    assert found == pytest.approx(scipy.stats.ttest_rel(values, others).pvalue, rel=1e-6)


@given(SAMPLES, st.floats(0.01, 100))
def test_equivalence_is_statsmodels(values: list[float], margin: float) -> None:
    centred = [v - 50 for v in values]
    p, _, _ = DescrStatsW(centred).ttost_mean(-margin, margin)
    assert ours.p_equivalent(spread(centred), margin) == pytest.approx(p, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("values", [[], [70.0], [70.1, 70.1, 70.1], [0.1 + 0.2, 0.3]])
def test_nothing_is_tested_where_nothing_varies(values: list[float]) -> None:
    found = Spread.of(values)
    assert ours.interval(found) is None and ours.p_value(found) is None
    assert ours.p_equivalent(found, 0.5) is None and ours.seeds_needed(found) is None


def test_intervals_cover_at_their_rate() -> None:
    draws = np.random.RandomState(1).normal(70, 0.3, (4000, 3))
    intervals = [ours.interval(spread(d)) for d in draws.tolist()]
    covered = np.mean([i is not None and i.low <= 70 <= i.high for i in intervals])
    assert covered == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


# several ------------------------------------------------------------------------------------------------------------


@given(PS)
def test_holm_is_statsmodels(ps: list[float]) -> None:
    assert ours.holm(ps) == pytest.approx(list(multipletests(ps, method="holm")[1]) if ps else [])


@given(PS)
def test_holm_is_monotone_and_never_below_the_raw_p(ps: list[float]) -> None:
    corrected = ours.holm(ps)
    assert all(p <= c <= 1 for p, c in zip(ps, corrected, strict=True))
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    assert [corrected[i] for i in order] == sorted(corrected)


@given(st.lists(st.none() | SAMPLES, max_size=6))
def test_differences_are_corrected_over_those_that_can_be_tested(samples: list[list[float] | None]) -> None:
    spreads = [Spread.of(s) if s else None for s in samples]
    found = ours.differences(spreads)
    assert [d is None for d in found] == [s is None for s in spreads]
    tested = [d for d in found if d]
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
    found = ours.verdict(spread(values), published, margin)
    assert (found.text == "reproduced") == (p < 0.05)
    if found.text == "not reproduced":
        assert abs(spread(values).mean - published) > margin


# ranks --------------------------------------------------------------------------------------------------------------

# Three pairs, five seeds; of rliable 1.2.0: get_interval_estimates(probability_of_improvement, reps=50000).
A = ((71.18, 70.9, 70.64, 70.87, 70.86), (70.87, 71.04, 70.76, 70.52, 71.24), (71.97, 71.63, 71.08, 70.92, 70.33))
B = ((70.52, 70.2, 70.46, 71.2, 70.65), (71.26, 71.06, 70.45, 71.08, 70.8), (71.54, 70.41, 70.63, 70.82, 70.76))
RLIABLE = (0.6266666667, 0.4133333333, 0.8266666667)
SHIFTED = (0.32, 0.84)  # of two equal pairs 1 to 5 against 0.5 to 4.5


def ranked(scores: Scores, baseline: str = "student") -> tuple[Ranking, dict[str, Rank]]:
    found = ranking(scores, baseline)
    assert found is not None
    return found, {r.method: r for r in found.ranks}


def test_probability_of_improvement_is_rliables() -> None:
    _, by = ranked({i: {"a": a, "b": b} for i, (a, b) in enumerate(zip(A, B, strict=True))}, "b")
    better, interval = by["a"].better, by["a"].better_interval
    assert better == pytest.approx(RLIABLE[0]) and by["b"].better is None
    assert interval and (interval.low, interval.high) == pytest.approx(RLIABLE[1:], abs=0.021)
    u = [scipy.stats.mannwhitneyu(a, b).statistic / 25 for a, b in zip(A, B, strict=True)]
    assert better == pytest.approx(np.mean(u))


def test_seeds_are_drawn_for_each_method_on_its_own() -> None:
    """As rliable does, where drawing the same seeds for both would give [0.62, 0.76]."""
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
    found = by["a"].rank_interval
    assert found and (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


SCORES = st.dictionaries(
    st.integers(0, 20),
    st.fixed_dictionaries({m: st.lists(TOP1, min_size=1, max_size=4) for m in ("student", "kd", "crd")}),
    min_size=2,
    max_size=4,
)


@settings(deadline=None, max_examples=25)
@given(SCORES)
def test_ranks_and_probabilities_add_up(scores: dict[int, dict[str, list[float]]]) -> None:
    found, by = ranked(scores)
    assert sum(r.rank for r in found.ranks) == pytest.approx(6)
    expected = np.mean([scipy.stats.rankdata([-np.mean(v[m]) for m in by]) for v in scores.values()], axis=0)
    assert [r.rank for r in by.values()] == pytest.approx(list(expected))
    _, turned = ranked(scores, "kd")
    forth, back = by["kd"].better, turned["student"].better
    assert forth is not None and back is not None and forth + back == pytest.approx(1)
    for r in found.ranks:
        single = any(len(v[r.method]) == 1 for v in scores.values())
        assert (r.rank_interval is None) == single
        if r.rank_interval:
            assert 1 <= r.rank_interval.low <= r.rank_interval.high <= 3
    assert ranking(scores, "student") == found, "the same every time"


def test_methods_without_a_result_somewhere_are_not_ranked() -> None:
    scores = {1: {"student": [1.0], "kd": [2.0], "crd": [3.0]}, 2: {"student": [1.0], "kd": [2.0], "crd": []}, 3: {}}
    found, by = ranked(scores)
    assert list(by) == ["kd", "student"] and found.left_out == ("crd",) and found.pairs == 2
    assert ranking({1: scores[1]}, "student") is None, "one pair has no average"
    _, by = ranked(scores, "none")
    assert all(r.better is None for r in by.values())


# whom further seeds go to --------------------------------------------------------------------------------------------


def compared(tops: dict[str, tuple[float, ...]], **changes: Any) -> Comparison:
    """Methods of one pair, by their last top-1 per seed."""
    cells = [Cell("t", "s", m, seed, f"{m}-{seed}", None) for m, values in tops.items() for seed in range(len(values))]
    rows = [row(f"{m}-{seed}", v, v) for m, values in tops.items() for seed, v in enumerate(values)]
    return comparison.compare(replace(contents((), 0), cells=tuple(cells), **changes), table(rows))


CLOSE = {"student": (60.0, 60.6, 60.1), "kd": (70.0, 70.9, 70.2), "crd": (70.3, 70.4, 70.1)}


@pytest.mark.parametrize(
    ("listed", "limit", "expected"),
    [(3, 10, (3, 5, 8, 10)), (2, 4, (2, 3, 4)), (1, 3, (1, 2, 3)), (5, 6, (5, 6)), (3, 4, (3, 4))],
)
def test_the_number_of_looks_is_fixed_beforehand(listed: int, limit: int, expected: tuple[int, ...]) -> None:
    assert contests.looks(listed, limit) == expected


def test_neighbours_in_rank_are_compared_and_only_the_open_get_seeds() -> None:
    found = compared(CLOSE)
    sizes = contests.looks(3, 10)
    one, two = contests.contests(found, None, sizes)
    assert (one.first, one.second, two.first, two.second) == ("kd", "crd", "crd", "student")
    values = np.array(list(CLOSE.values()))
    p = [scipy.stats.ttest_rel(*values[[i, j]]).pvalue for i, j in ((1, 2), (2, 0))]
    assert [one.p, two.p] == pytest.approx(list(multipletests(p, method="holm")[1]))
    assert two.decided and not one.decided and one.seeds_needed and one.seeds_needed > 3
    further = contests.further_seeds(found, [one, two], (0, 1, 2), sizes)
    assert further == {("t", "s", m): [3, 4] for m in CLOSE}, "the baseline stays paired"


def test_an_undecided_pair_leaves_decided_methods_alone() -> None:
    tops = {**CLOSE, "rekd": (80.0, 80.1, 80.05), "student": (50.0, 50.1, 50.2)}
    found = compared(tops, baseline="kd")
    sizes = contests.looks(3, 4)
    all_ = contests.contests(found, None, sizes)
    assert {frozenset((c.first, c.second)): c.decided for c in all_} == {
        frozenset(("rekd", "kd")): True,
        frozenset(("kd", "crd")): False,
        frozenset(("crd", "student")): True,
    }
    assert set(contests.further_seeds(found, all_, (0, 1, 2), sizes)) == {("t", "s", "kd"), ("t", "s", "crd")}


def test_against_a_baseline_every_method_is_compared_with_it() -> None:
    found = contests.contests(compared(CLOSE), "student", (3,))
    assert [(c.first, c.second) for c in found] == [("kd", "student"), ("crd", "student")]
    assert all(c.decided for c in found)


def test_equal_within_the_margin_is_decided() -> None:
    tops = {"kd": (70.0, 70.1, 70.2, 70.3), "crd": (70.01, 70.08, 70.21, 70.29)}
    (contest,) = contests.contests(compared(tops), None, (4,))
    assert contest.decided and contest.p > 0.5 > 0.01 > contest.p_equal
    (contest,) = contests.contests(compared(tops, margin=0.001), None, (4,))
    assert not contest.decided


def test_each_look_tests_at_its_share() -> None:
    found = compared({"crd": (70.0, 70.5, 71.0), "kd": (71.0, 71.3, 71.5)}, margin=0.0)
    (once,), (of_four,) = contests.contests(found, None, (3,)), contests.contests(found, None, (3, 5, 8, 10))
    assert 0.05 / 4 < once.p < 0.05 and once.decided and not of_four.decided
    assert of_four.seeds_needed and of_four.seeds_needed > 3


def test_after_the_last_look_nothing_is_added() -> None:
    found = compared(CLOSE)
    open_ = contests.contests(found, None, (3,))
    assert contests.further_seeds(found, open_, (0, 1, 2), (2, 3)) == {}


def test_entries_of_one_science_are_not_compared() -> None:
    found = compared({"kd": (70.0, 71.0), "twin": (70.0, 71.0)})
    same = [replace(r, run_ids=("kd-0", "kd-1")) for r in found.rows]
    assert contests.contests(replace(found, rows=tuple(same)), None, (2,)) == []


def test_looking_again_and_again_errs_as_seldom_as_promised() -> None:
    """Two methods that are the same: found different at some look in at most 5 % of sweeps."""
    sizes = contests.looks(3, 10)
    wrong = naive = 0
    sweeps = np.random.RandomState(7).normal(0, 0.3, (2000, sizes[-1]))
    for differences in sweeps.tolist():
        ps = [ours.p_value(Spread.of(differences[:n])) for n in sizes]
        wrong += any(p is not None and p < ours.ERROR / len(sizes) for p in ps)
        naive += any(p is not None and p < ours.ERROR for p in ps)
    assert wrong / len(sweeps) <= 0.05 < naive / len(sweeps)


# tables -------------------------------------------------------------------------------------------------------------

WIDE = {"student": (60.0, 60.6, 60.1), "kd": (62.0, 62.7, 62.1), "crd": (60.2, 60.3, 60.4)}


def cells_of(text: str) -> list[dict[str, str]]:
    """The first Markdown table's lines."""
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    return [dict(zip(lines[0], line, strict=False)) for line in lines[1 : len(WIDE) + 1]]


def test_the_table_prints_intervals_and_marks() -> None:
    found = compared(WIDE)
    student, kd, crd = cells_of(render.markdown(found))
    ci = scipy.stats.ttest_1samp(WIDE["student"], 0).confidence_interval()
    assert student["95 % CI"] == f"[{ci.low:.2f}, {ci.high:.2f}]" and student["95 % CI of - student"] == ""
    test = scipy.stats.ttest_rel(WIDE["kd"], WIDE["student"])
    ci = test.confidence_interval()
    assert 0.0001 < test.pvalue * 2 < 0.001
    assert kd["95 % CI of - student"] == f"[{ci.low:+.2f}, {ci.high:+.2f}] ***"
    assert crd["95 % CI of - student"].endswith("]"), "no mark"
    needed = ours.seeds_needed(found.rows[2].to_baseline, 0.05 / 2)
    text = "\n".join(sections.notes(found))
    assert "Paired t-test against student, Holm-corrected over a pair's methods: * p < 0.05, ** p < 0.01" in text
    assert f"were mean and std of the difference those seen here): t > s: crd ({needed or 'over 10,000'})." in text


def test_marks_are_after_the_correction() -> None:
    """Raw p below 0.05, corrected above it: no mark."""
    found = compared({**WIDE, "kd": (60.5, 61.5, 60.8)})
    kd = found.rows[1].tested
    assert kd and kd.p < 0.05 < kd.p_holm
    assert cells_of(render.markdown(found))[1]["95 % CI of - student"].endswith("]")


def test_one_seed_has_neither_intervals_nor_tests() -> None:
    text = render.markdown(compared({m: v[:1] for m, v in WIDE.items()}))
    assert "95 %" not in text and "t-test" not in text


def test_another_baseline_takes_the_students_place() -> None:
    found = compared(WIDE, baseline="crd")
    student, kd, crd = cells_of(render.markdown(found))
    assert "- student" not in student and "- KD" in student
    assert (crd["- crd"], crd["95 % CI of - crd"]) == ("", "") and kd["- crd"].startswith("+1.97")
    kd_first = cells_of(render.markdown(compared(WIDE, baseline="kd")))[0]
    assert "- kd" in kd_first and "- KD" not in kd_first
    assert found.rows[0].student_score == pytest.approx(60.2333333), "what the student has alone"


def two_pairs() -> Comparison:
    tops = {
        "small": {"student": (60.0, 61.0), "kd": (62.0, 63.0)},
        "large": {"student": (60.0, 61.0), "kd": (59, 60.5)},
    }
    cells = [Cell(t, "s", m, i, f"{t}{m}{i}", None) for t, ms in tops.items() for m in ms for i in (0, 1)]
    rows = [
        row(f"{t}{m}{i}", float(v), 99.0) for t, ms in tops.items() for m, vs in ms.items() for i, v in enumerate(vs)
    ]
    return comparison.compare(replace(contents((), 0), cells=tuple(cells)), table(rows))


def test_ranks_over_pairs_have_a_table_in_every_format() -> None:
    found = two_pairs()
    for form in render.FORMATS:
        text = publish.text(found, f"table.{form}")
        if form == "csv":
            rows = list(csv.DictReader(io.StringIO(text)))
            assert [r["average_rank"] for r in rows] == ["1.5"] * 4
            assert [r["p_better"] for r in rows] == ["", "0.625", "", "0.625"]
            assert float(rows[1]["p_better_ci_low"]) < 0.625 < float(rows[1]["p_better_ci_high"])
        else:
            assert sections.RANKS in text and "Agarwal et al. 2021" in text
    _, ranks = sections.sections(found, None)
    assert [line[:3] for line in ranks.lines] == [
        ("over", "method", "average rank"),
        ("2 pairs", "student", "1.50"),
        ("2 pairs", "kd", "1.50"),
    ]
    assert render.latex(found).count(r"\begin{table}") == render.latex(found).count(r"\end{table}") == 2
    assert render.html_text(found).count("<table>") == 2


def test_csv_has_the_tests() -> None:
    _, kd, _ = csv.DictReader(io.StringIO(render.csv_text(compared(WIDE))))
    test = scipy.stats.ttest_rel(WIDE["kd"], WIDE["student"])
    assert kd["baseline"] == "student"
    assert float(kd["p"]) == pytest.approx(test.pvalue, rel=1e-5)
    assert float(kd["p_holm"]) == pytest.approx(2 * test.pvalue, rel=1e-5)
    assert float(kd["to_baseline_ci_low"]) == pytest.approx(test.confidence_interval().low, rel=1e-5)


# with a store --------------------------------------------------------------------------------------------------------

SWEEP: dict[str, Any] = {
    "name": "small",
    "dataset": "digits",
    "recipe": "digits_quick",
    "methods": {"student": {}, "kd": {}, "dkd": {}},
    "pairs": [{"teacher": t, "student": "digits_net_w4"} for t in ("digits_net_w8", "digits_net_w16")],
    "seeds": 3,
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def finish(sweep: dict[str, Any]) -> None:
    """Writes the sweep, and a made-up record for each of its runs."""
    Path("small.yaml").write_text(yaml.safe_dump(sweep))
    planned = plan_sweep(Path("small.yaml"), Path("results"))
    method = {c.run_id: c.method for c in planned.plan.cells}
    for run in planned.plan.runs.values():
        if not planned.store.record(run.run_id).exists():
            seed = run.science["seed"]
            top1 = 60.0 + 5 * len(method.get(run.run_id, "")) + math.sin(7 * seed + len(run.label)) / 3
            records.write(planned.store, row(run.run_id, top1, 99.0, science=identity.canonical(run.science)))


def test_report_takes_a_baseline_and_verify_rebuilds_it(home: Path) -> None:
    finish(SWEEP)
    said = command("report", "small.yaml", "--baseline", "kd", "--out", "paper")
    assert said.code == 0
    assert "95 % CI of - kd" in Path("paper/small/table.md").read_text()
    assert command("verify", "--tables", "paper").code == 0
    error = command("report", "small.yaml", "--baseline", "kdd").error
    assert "small: --baseline: unknown method of this table 'kdd'; did you mean 'kd'?" in error
    assert "unknown method of this table 'kdd'" in command("sweep", "small.yaml", "--baseline", "kdd").error


def test_sweep_lists_tests_and_ranks_as_json(home: Path) -> None:
    finish(SWEEP)
    said = json.loads(command("sweep", "small.yaml", "--json", "--baseline", "kd", "--margin", "0.25").out)
    assert (said["baseline"], said["margin"]) == ("kd", 0.25)
    assert said["rows"][0]["tested"]["p"] <= said["rows"][0]["tested"]["p_holm"]
    assert said["rows"][0]["last_interval"]["low"] < said["rows"][0]["last"]["mean"]
    assert said["ranking"]["pairs"] == 2 and len(said["ranking"]["ranks"]) == 3


UNLIKE = {**SWEEP, "methods": {"student": {}, "kd": {}, "dkd": {"recipe": {"epochs": 5, "lr": 0.1}}}}


@pytest.mark.parametrize("args", [("report",), ("sweep",), ("sweep", "--plan")], ids=" ".join)
def test_unlike_protocols_are_refused_and_why_is_said(home: Path, args: tuple[str, ...]) -> None:
    finish(UNLIKE)
    error = command(args[0], "small.yaml", *args[1:]).error
    assert "a column would hold numbers of unlike protocols" in error
    assert "digits_net_w8 > digits_net_w4, dkd: epochs 5, lr 0.1" in error and "--mix-protocols" in error


def test_mixed_protocols_are_marked_in_every_format(home: Path) -> None:
    finish(UNLIKE)
    assert command("sweep", "small.yaml", "--mix-protocols").code == 0
    for form in render.FORMATS:
        text = command("report", "small.yaml", "--mix-protocols", "--format", form).out
        if form == "csv":
            changes = {r["method"]: r["unlike_protocol"] for r in csv.DictReader(io.StringIO(text))}
            assert changes == {"student": "", "kd": "", "dkd": "epochs 5, lr 0.1"}
        else:
            assert "dkd (a)" in text and "kd (a)" not in text.replace("dkd (a)", "")
            assert "not comparable with the rest: (a) epochs 5, lr 0.1." in text
            assert "another recipe" not in text
    assert "unlike protocols" in command("report").error, "a stored table is refused as well"
    assert command("report", "--mix-protocols").code == 0
    assert command("verify").code == 0


def test_a_pairs_epochs_are_guarded_and_a_learning_rate_is_its_own(home: Path) -> None:
    pairs = [SWEEP["pairs"][0], {**SWEEP["pairs"][1], "recipe": {"lr": 0.01}}]
    finish({**SWEEP, "pairs": pairs})
    said = command("report", "small.yaml")
    assert said.code == 0 and "digits_net_w16 > digits_net_w4: lr 0.01" in said.out
    finish({**SWEEP, "pairs": [SWEEP["pairs"][0], {**SWEEP["pairs"][1], "recipe": {"epochs": 4}}]})
    assert "digits_net_w16 > digits_net_w4, kd: epochs 4" in command("report", "small.yaml").error


def test_unlike_pairs_of_one_name_are_refused_whatever_is_asked(home: Path) -> None:
    pairs = [SWEEP["pairs"][0], {**SWEEP["pairs"][0], "recipe": {"lr": 0.01}}]
    Path("small.yaml").write_text(yaml.safe_dump({**SWEEP, "pairs": pairs}))
    for args in (("sweep", "small.yaml", "--plan"), ("report", "small.yaml", "--mix-protocols")):
        error = command(*args).error
        assert "the pair digits_net_w8 > digits_net_w4 is listed twice, with unlike teachers or settings" in error


def added(*seeds: int, method: str = "kd", run_id: str | None = None) -> None:
    """Notes seeds of the first pair as ``--until-decided`` would."""
    planned = plan_sweep(Path("small.yaml"), Path("results"))
    cell = next(c for c in planned.plan.cells if c.method == method)
    science = planned.plan.runs[cell.run_id].science
    cells = [{**cell.__dict__, "seed": s, "run_id": run_id or identity.run_id({**science, "seed": s})} for s in seeds]
    path = planned.store.added_seeds("small")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(cells))


def test_added_seeds_are_ordinary_runs_in_every_command(home: Path) -> None:
    finish(SWEEP)
    added(3, 4)
    listed = {**SWEEP, "seeds": 5}
    Path("five.yaml").write_text(yaml.safe_dump({**listed, "name": "five"}))
    five = {c.run_id for c in plan_sweep(Path("five.yaml"), Path("results")).plan.cells if c.method == "kd"}
    plan = plan_sweep(Path("small.yaml"), Path("results")).plan
    first = [c for c in plan.cells if c.method == "kd" and c.teacher == "digits_net_w8"]
    assert [c.seed for c in first] == [0, 1, 2, 3, 4] and {c.run_id for c in first} <= five
    assert sum(c.seed > 2 for c in plan.cells) == 2
    finish(SWEEP)
    said = command("report", "small.yaml")
    assert "Seeds that --until-decided added: digits_net_w8 > digits_net_w4, kd: seeds 3, 4." in said.out
    assert command("report", "small.yaml", "--only", "method=kd").out.count("seeds 3, 4") == 1
    assert command("sweep", "small.yaml").out.startswith(said.out)
    assert command("verify").code == 0


def test_added_seeds_of_another_science_are_left_out(home: Path) -> None:
    finish(SWEEP)
    added(3, run_id="0" * 16)
    assert all(c.seed < 3 for c in plan_sweep(Path("small.yaml"), Path("results")).plan.cells)


@pytest.mark.parametrize("text", ["", "{}{", "5", '[{"teacher": 1}]'])
def test_a_damaged_note_of_added_seeds_is_named(home: Path, text: str) -> None:
    finish(SWEEP)
    added(3)
    Path("results/added_seeds/small.json").write_text(text)
    assert "results/added_seeds/small.json: damaged" in command("report", "small.yaml").error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-seeds", "5"), "--max-seeds goes with --until-decided"),
        (("--until-decided", "--max-seeds", "3"), "small.yaml: lists 3 seeds: --max-seeds must be more, found 3"),
        (("--until-decided", "--only", "seed=0"), "--until-decided adds seeds, and --only seed=... keeps them out"),
        (("--until-decided", "--detach"), "give it without --detach"),
        (("--margin", "-1"), "--margin"),
    ],
)
def test_options_that_do_not_go_together(home: Path, options: tuple[str, ...], message: str) -> None:
    Path("small.yaml").write_text(yaml.safe_dump(SWEEP))
    assert message in command("sweep", "small.yaml", *options).error
    assert [p.name for p in Path().iterdir()] == ["small.yaml"]


def test_planning_and_status_import_no_scipy(home: Path) -> None:
    """Of a store without records."""
    Path("small.yaml").write_text(yaml.safe_dump(SWEEP))
    for args in (("sweep", "small.yaml", "--plan"), ("status", "small.yaml")):
        code = (
            "import sys; from harness import cli; sys.argv = ['harness', *sys.argv[1:]]\n"
            "try: cli.main()\nfinally: print([m for m in ('scipy', 'numpy', 'pyarrow') if m in sys.modules])"
        )
        said = process("-c", code, *args, cwd=home)
        assert said.out.splitlines()[-1] == "[]", said

"""Slopes of gains over the teacher's size, against scipy and statsmodels, and through the command."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import statsmodels.api
import yaml
from statsmodels.stats.multitest import multipletests

from harness.planning.plan import plan_sweep
from harness.reporting import comparison
from harness.reporting.claim_outcomes import ClaimedSlope, ComparedMethods, outcomes_of
from harness.reporting.comparison import Comparison
from harness.reporting.figures import capacity_gap, style
from harness.reporting.gap_slopes import GapLine, StudentGap, student_gaps
from harness.reporting.statistics import Slope, Spread, interval, p_value, seeds_needed
from harness.reporting.tables.gap import gap_markdown
from harness.spec import models
from harness.spec.sweep_plan import Cell
from harness.store import records
from tests.support.cli import run_command
from tests.support.comparisons import contents, row, table

STUDENT = "digits_net_w4"
TEACHERS = ("digits_net_w16", "digits_net_w4", "digits_net_w32", "digits_net_w8")  # not in the order of their sizes
ORDERED = ("digits_net_w4", "digits_net_w8", "digits_net_w16", "digits_net_w32")
DOUBLINGS = [math.log2(models.model_facts(teacher).params) for teacher in ORDERED]
SLOPES = {"student": 0.0, "kd": 0.1, "rekd": 1.5, "fitnets": -0.7}


def score(method: str, teacher: str, seed: int) -> float:
    """Return a made-up score: a line over the size, with noise of the teacher and of the run."""
    size = 0.0 if method == "student" else math.log2(models.model_facts(teacher).params)
    name = len(method) + 3 * ord(method[0])
    return 60 + SLOPES[method] * size + seed + 0.1 * math.sin(size * name) + 0.2 * math.sin(name * (size + 2 + seed))


def compared(seeds: int = 3, left_out: tuple[tuple[str, str, int], ...] = (), methods: Any = SLOPES) -> Comparison:
    """Compare made-up runs of one student. ``left_out``: those without a record."""
    cells = [
        Cell(t, STUDENT, m, seed, m if m == "student" else f"{t}-{m}-{seed}", None)
        for t in TEACHERS for m in methods for seed in range(seeds)
    ]  # fmt: skip
    cells = [replace(c, run_id=f"student-{c.seed}") if c.method == "student" else c for c in cells]
    made = {c.run_id: c for c in cells if (c.method, c.teacher, c.seed) not in left_out}
    rows = [row(run_id, top := score(c.method, c.teacher, c.seed), top) for run_id, c in made.items()]
    return comparison.compare(replace(contents((), 0), cells=tuple(cells)), table(rows))


def gap_of(compared: Comparison) -> StudentGap:
    (gap,) = student_gaps(compared)
    return gap


def by_method(lines: tuple[GapLine, ...]) -> Mapping[str, GapLine]:
    return {line.method if line.other == "student" else line.other: line for line in lines}


def seed_slopes(method: str, other: str, seeds: range = range(3)) -> list[float]:
    values = [[score(method, t, seed) - score(other, t, seed) for t in ORDERED] for seed in seeds]
    return [float(scipy.stats.linregress(DOUBLINGS, of_seed).slope) for of_seed in values]


def test_a_slope_is_that_of_scipy_and_statsmodels() -> None:
    xs, ys = [1.0, 2.5, 3.0, 7.0, 8.0], [2.0, 1.0, 4.5, 6.0, 5.0]
    slope, expected = Slope.of(xs, ys), scipy.stats.linregress(xs, ys)
    assert slope is not None
    assert (slope.mean, slope.error) == pytest.approx((expected.slope, expected.stderr)) and slope.degrees == 3
    assert p_value(slope) == pytest.approx(expected.pvalue)
    fit = statsmodels.api.OLS(ys, statsmodels.api.add_constant(np.array(xs))).fit()
    ends = interval(slope)
    assert ends is not None and (ends.low, ends.high) == pytest.approx(tuple(fit.conf_int(0.05)[1]))


def test_what_lies_on_its_line_is_not_tested() -> None:
    assert Slope.of([1.0, 1.0], [2.0, 3.0]) is None
    for xs in ([1.0, 3.0], [1.0, 2.0, 4.0]):
        slope = Slope.of(xs, [2 * x for x in xs])
        assert slope is not None and slope.mean == pytest.approx(2) and p_value(slope) is interval(slope) is None


def test_gains_are_tested_over_seeds_and_over_teachers() -> None:
    gap = gap_of(compared())
    assert tuple(gap.teachers) == ORDERED
    lines = by_method(gap.gains)
    assert list(lines) == ["kd", "rekd", "fitnets"]
    assert lines["kd"].gains["digits_net_w8"] == Spread.of(
        score("kd", "digits_net_w8", s) - score("student", "digits_net_w8", s) for s in range(3)
    )
    expected = {m: scipy.stats.ttest_1samp(seed_slopes(m, "student"), 0) for m in lines}
    corrected = multipletests([test.pvalue for test in expected.values()], method="holm")[1]
    means = {m: [np.mean([score(m, t, s) - score("student", t, s) for s in range(3)]) for t in ORDERED] for m in lines}
    fits = {m: scipy.stats.linregress(DOUBLINGS, of_method) for m, of_method in means.items()}
    of_teachers = multipletests([fit.pvalue for fit in fits.values()], method="holm")[1]
    for (m, line), p_holm, p_teachers in zip(lines.items(), corrected, of_teachers, strict=True):
        ends = expected[m].confidence_interval()
        assert line.slope is not None and line.over_seeds is not None and line.over_teachers is not None
        assert line.slope.mean == pytest.approx(np.mean(seed_slopes(m, "student")))
        assert line.slope.mean == pytest.approx(fits[m].slope), "both tests are of one slope"
        assert (line.over_seeds.interval.low, line.over_seeds.interval.high) == pytest.approx((ends.low, ends.high))
        assert (line.over_seeds.p, line.over_seeds.p_holm) == pytest.approx((expected[m].pvalue, p_holm))
        assert (line.over_teachers.p, line.over_teachers.p_holm) == pytest.approx((fits[m].pvalue, p_teachers))
        assert line.middle == pytest.approx(np.mean(means[m]))
        assert line.seeds_needed == seeds_needed(line.slope, 0.05 / 3)


def test_advantages_are_differences_of_the_own_methods_gains() -> None:
    lines = by_method(gap_of(compared()).advantages)
    assert list(lines) == ["kd", "fitnets"]
    for other, line in lines.items():
        expected = seed_slopes("rekd", other)
        assert line.slope is not None
        assert (line.slope.mean, line.slope.std) == pytest.approx((np.mean(expected), np.std(expected, ddof=1)))
    assert {line.verdict for line in lines.values()} == {"grows"}
    assert gap_of(compared(methods=("student", "kd"))).advantages == ()


def test_a_slope_needs_both_tests_to_be_told_apart() -> None:
    lines = by_method(gap_of(compared()).gains)
    assert lines["fitnets"].verdict == "does not grow" and lines["rekd"].verdict == "grows"
    weak = replace(lines["rekd"].over_seeds, p_holm=0.05)
    assert replace(lines["rekd"], over_seeds=weak).verdict == "not told apart"
    assert replace(lines["rekd"], over_teachers=weak).verdict == "not told apart"
    assert replace(lines["rekd"], over_teachers=None).verdict == "not told apart"
    assert by_method(gap_of(compared(seeds=1)).gains)["rekd"].verdict == "not told apart", "one seed is no test"


def test_a_slope_is_over_the_seeds_with_every_teacher_that_has_results() -> None:
    gone = [("kd", "digits_net_w8", 1), *(("rekd", "digits_net_w32", seed) for seed in range(3))]
    gap = gap_of(compared(left_out=tuple(gone)))
    lines = by_method(gap.gains)
    assert (lines["kd"].seeds, lines["kd"].left_out) == ((0, 2), (1,))
    assert lines["kd"].gains["digits_net_w8"].n == 2 and lines["kd"].gains["digits_net_w16"].n == 3
    assert lines["kd"].slope is not None
    assert lines["kd"].slope.mean == pytest.approx(np.mean([seed_slopes("kd", "student")[seed] for seed in (0, 2)]))
    assert lines["rekd"].teachers == ORDERED[:3] and lines["rekd"].slope is not None
    assert by_method(gap.advantages)["kd"].teachers == ORDERED[:3]
    two = [("rekd", t, seed) for t in TEACHERS[1:3] for seed in range(3)]
    gap = gap_of(compared(left_out=tuple(two)))
    assert by_method(gap.gains)["rekd"].slope is None and by_method(gap.gains)["kd"].slope is not None
    text = gap_markdown(compared(left_out=tuple(gone)))
    assert "rekd: no result yet under digits_net_w32." in text and "not in the slope: seed 1." in text
    assert text.count("Runs are missing.") == 2
    assert "no slope yet" in gap_markdown(compared(left_out=tuple(two)))


@pytest.mark.parametrize(("seeds", "found_over_seeds"), [(3, 0.17), (10, 0.51)])
def test_only_teachers_as_the_unit_err_as_often_as_stated(seeds: int, found_over_seeds: float) -> None:
    """Simulate gains that do not change with the size, and scatter between teachers as much as between runs."""
    sizes = [math.log2(models.model_facts(t).params) for t in ("resnet14", "resnet20", "resnet32", "resnet56")]
    random, trials, found = np.random.default_rng(0), 1000, [0, 0]
    for _ in range(trials):
        gains = random.normal(size=4) + random.normal(size=(seeds, 4))
        slopes = [slope.mean for of_seed in gains.tolist() if (slope := Slope.of(sizes, of_seed))]
        tests = (p_value(Spread.of(slopes)), p_value(Slope.of(sizes, gains.mean(0).tolist())))
        found = [count + (p is not None and p < 0.05) for count, p in zip(found, tests, strict=True)]
    assert found[0] / trials == pytest.approx(found_over_seeds, abs=0.03)
    assert found[1] / trials == pytest.approx(0.05, abs=0.02)


def test_without_gains_there_is_no_gap() -> None:
    alone = tuple(("student", t, seed) for t in TEACHERS for seed in range(3))
    assert student_gaps(compared(left_out=alone)) == student_gaps(compared(methods=("kd", "rekd"))) == []


def test_the_figure_has_the_gains_and_their_lines() -> None:
    (drawing,) = capacity_gap.drawings(compared(left_out=(("kd", "digits_net_w8", 1),)))
    assert "95 % intervals" in drawing.caption and "least-squares line" in drawing.caption
    text = style.render(drawing, "svg")["svg"].decode()
    assert "gain (points)" in text and text.count(">fitnets<") == 1, "one legend for both"
    gap = gap_of(compared())
    fitted = capacity_gap._fitted(gap.gains[1], gap)
    assert fitted[0] == [models.model_facts(t).params for t in (ORDERED[0], ORDERED[-1])]
    means = [gap.gains[1].gains[t].mean for t in ORDERED]
    expected = scipy.stats.linregress(DOUBLINGS, means)
    assert fitted[1] == pytest.approx([expected.intercept + expected.slope * x for x in (DOUBLINGS[0], DOUBLINGS[-1])])


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a store with a made-up record for each run of ``gap.yaml``, and of a sweep of one pair."""
    monkeypatch.chdir(tmp_path)
    sweep = {"dataset": "digits", "recipe": "digits_quick", "methods": list(SLOPES), "seeds": 3}
    pairs = [{"teacher": t, "student": STUDENT} for t in TEACHERS]
    (tmp_path / "gap.yaml").write_text(yaml.safe_dump({**sweep, "pairs": pairs}))
    (tmp_path / "pair.yaml").write_text(yaml.safe_dump({**sweep, "pairs": pairs[:1]}))
    planned = plan_sweep(Path("gap.yaml"), Path("results"))
    cells = {c.run_id: c for c in planned.plan.cells}
    for run_id, run in planned.plan.runs.items():
        cell = cells.get(run_id)
        top1 = score(cell.method, cell.teacher, cell.seed) if cell else 90.0
        records.write_record(planned.store, row(run_id, top1, 99.0, science=run.science.text))
    return tmp_path


def test_the_command_prints_slopes_and_verdicts(finished: Path) -> None:
    result = run_command("report", "gap.yaml", "--gap")
    assert result.code == 0
    assert "| rekd - student " in result.out and "| rekd - fitnets " in result.out and "per doubling" in result.out
    assert "- rekd's advantage over fitnets grows with the teacher: +2.16" in result.out
    fitted = run_command("report", "gap.yaml", "--gap", "--format", "terminal").out.splitlines()
    assert max(map(len, fitted)) <= 80 and not any(line.startswith("Too wide") for line in fitted)
    assert "rekd's advantage over fitnets grows with the teacher: +2.16 points per doubling" in fitted
    document = json.loads(run_command("report", "gap.yaml", "--gap", "--json").out)
    (gap,) = document["gap"]
    assert [line["verdict"] for line in gap["advantages"]] == ["grows", "grows"]
    assert gap["gains"][0]["over_teachers"]["p"] <= gap["gains"][0]["over_teachers"]["p_holm"]
    assert "--json goes with --gap" in run_command("report", "gap.yaml", "--json").error
    assert "what writes files" in run_command("report", "gap.yaml", "--gap", "--json", "--out", "paper").error
    assert "select the runs of a sweep file: name the file" in run_command("report", "--only", "seed=0").error
    assert "give it without --paper" in run_command("report", "gap.yaml", "--gap", "--paper").error
    assert "three teachers of different known sizes" in run_command("report", "pair.yaml", "--gap").error


def test_verify_rebuilds_the_slopes_next_to_tables(finished: Path) -> None:
    result = run_command("report", "gap.yaml", "--gap", "--out", "paper")
    path = Path("paper/gap/gap.md")
    assert str(path) in result.out.split()
    path.write_text(path.read_text().replace("grows", "GROWS", 1))
    result = run_command("verify", "--tables", "paper")
    assert result.code == 1 and result.out.count("DIFFERENT") == 1, "the rest is as it was"
    assert f"{path}: line " in result.out and "GROWS" in result.out


def test_claimed_slopes_and_comparisons_are_corrected_together() -> None:
    comparison, (teacher, *_) = compared(), ORDERED
    better = ComparedMethods(teacher=teacher, student=STUDENT, better="kd", than="student")
    claimed = [ClaimedSlope(student=STUDENT, method=m, over=o) for m, o in (("rekd", "student"), ("fitnets", "rekd"))]
    rows = {row.line: row for row in comparison.rows}
    (difference,), slopes = outcomes_of([better], claimed, rows, comparison)
    over_student = by_method(gap_of(comparison).gains)["rekd"]
    assert slopes[0].line.slope == over_student.slope and slopes[0].line.over_seeds is not None
    for outcome, methods in zip(slopes, (("rekd", "student"), ("fitnets", "rekd")), strict=True):
        of_seeds = scipy.stats.ttest_1samp(seed_slopes(*methods), 0).pvalue
        means = [np.mean([score(methods[0], t, s) - score(methods[1], t, s) for s in range(3)]) for t in ORDERED]
        assert outcome.p == pytest.approx(max(of_seeds, scipy.stats.linregress(DOUBLINGS, means).pvalue))
    ps = [difference.p or 0.0, *(outcome.p or 0.0 for outcome in slopes)]
    corrected = [difference.p_holm, *(outcome.p_holm for outcome in slopes)]
    assert corrected == pytest.approx(list(multipletests(ps, method="holm")[1]))
    assert [outcome.verdict for outcome in slopes] == ["grows", "shrinks"]


def test_a_claim_may_be_about_slopes(finished: Path) -> None:
    assert run_command("report", "gap.yaml", "--out", "results/tables").code == 0
    claim = {
        "statement": "ReKD gains more under larger teachers.", "table": "gap", "sweep": "gap.yaml",
        "command": "python -m harness.sweep gap.yaml", "commits": ["x"], "hardware": ["x"], "seeds": [0, 1, 2],
        "slopes": [{"student": STUDENT, "method": "rekd", "over": other} for other in ("student", "fitnets")],
        "test": "paired t-test over seeds, Holm over the comparisons, p < 0.01",
    }  # fmt: skip
    path = Path("results/claims/2026-11-30-gap/claim.yaml")
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(claim))
    assert run_command("report", "--claims", "results/claims").code == 0
    text = path.with_name("verdict.md").read_text()
    assert text.startswith("# Verdict: holds\n") and "the claim's slopes" in text and "claimed to be better" not in text
    first, second = (line for line in text.splitlines() if line.startswith(f"| {STUDENT}"))
    assert first.endswith(" grows |") and second.endswith(" grows |") and "+2.16 ± " in second
    assert ", ".join(ORDERED) in first, "from the smallest teacher to the largest"
    runs = [line for line in path.with_name("log.txt").read_text().splitlines() if line.startswith("run ")]
    assert len(runs) == 3 * 4 * 3, "three methods under four teachers, at three seeds"
    claim["slopes"] = [{"student": STUDENT, "method": "fitnets", "over": "student"}]
    path.write_text(yaml.safe_dump(claim))
    assert run_command("report", "--claims", "results/claims").code == 0
    assert path.with_name("verdict.md").read_text().startswith("# Verdict: contradicted\n")

"""Statistics in the printed tables."""

import csv
import io
from dataclasses import replace

import pytest
import scipy.stats

from harness.reporting import comparison
from harness.reporting import statistics as ours
from harness.reporting.comparison import Comparison
from harness.reporting.tables import formats, table_folder
from harness.reporting.tables import text as tables_text
from harness.spec.sweep_plan import Cell
from tests.support.comparisons import compared, contents, row, table

WIDE = {"student": (60.0, 60.6, 60.1), "kd": (62.0, 62.7, 62.1), "crd": (60.2, 60.3, 60.4)}


def cells_of(text: str) -> list[dict[str, str]]:
    """Return the lines of the first Markdown table."""
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    return [dict(zip(lines[0], line, strict=False)) for line in lines[1 : len(WIDE) + 1]]


def test_the_table_prints_intervals_and_marks() -> None:
    comparison = compared(WIDE)
    student, kd, crd = cells_of(formats.markdown(comparison))
    ci = scipy.stats.ttest_1samp(WIDE["student"], 0).confidence_interval()
    assert student["95 % CI"] == f"[{ci.low:.2f}, {ci.high:.2f}]" and student["95 % CI of - student"] == ""
    test = scipy.stats.ttest_rel(WIDE["kd"], WIDE["student"])
    ci = test.confidence_interval()
    assert 0.0001 < test.pvalue * 2 < 0.001
    assert kd["95 % CI of - student"] == f"[{ci.low:+.2f}, {ci.high:+.2f}] ***"
    assert crd["95 % CI of - student"].endswith("]"), "no mark"
    needed = ours.seeds_needed(comparison.rows[2].to_baseline, 0.05 / 2)
    text = "\n".join(tables_text.notes(comparison))
    assert "Paired t-test against student, Holm-corrected over a pair's methods: * p < 0.05, ** p < 0.01" in text
    assert f"were mean and std of the difference those seen here): t > s: crd ({needed or 'over 10,000'})." in text


def test_marks_are_after_the_correction() -> None:
    """A raw p below 0.05 that the correction raises above it gets no mark."""
    comparison = compared({**WIDE, "kd": (60.5, 61.5, 60.8)})
    kd = comparison.rows[1].tested
    assert kd and kd.p < 0.05 < kd.p_holm
    assert cells_of(formats.markdown(comparison))[1]["95 % CI of - student"].endswith("]")


def test_one_seed_has_neither_intervals_nor_tests() -> None:
    text = formats.markdown(compared({m: v[:1] for m, v in WIDE.items()}))
    assert "95 %" not in text and "t-test" not in text


def test_another_baseline_takes_the_students_place() -> None:
    comparison = compared(WIDE, baseline="crd")
    student, kd, crd = cells_of(formats.markdown(comparison))
    assert "- student" not in student and "- KD" in student
    assert (crd["- crd"], crd["95 % CI of - crd"]) == ("", "") and kd["- crd"].startswith("+1.97")
    kd_first = cells_of(formats.markdown(compared(WIDE, baseline="kd")))[0]
    assert "- kd" in kd_first and "- KD" not in kd_first
    assert comparison.rows[0].student_score == pytest.approx(60.2333333), "what the student has alone"


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
    comparison = two_pairs()
    for form in formats.FORMATS:
        text = table_folder.table_text(comparison, f"table.{form}")
        if form == "csv":
            rows = list(csv.DictReader(io.StringIO(text)))
            assert [r["average_rank"] for r in rows] == ["1.5"] * 4
            assert [r["p_better"] for r in rows] == ["", "0.625", "", "0.625"]
            assert float(rows[1]["p_better_ci_low"]) < 0.625 < float(rows[1]["p_better_ci_high"])
        else:
            assert tables_text.RANKS in text and "Agarwal et al. 2021" in text
    _, ranks = tables_text.sections(comparison, None)
    assert [line[:3] for line in ranks.lines] == [
        ("over", "method", "average rank"),
        ("2 pairs", "student", "1.50"),
        ("2 pairs", "kd", "1.50"),
    ]
    assert formats.latex(comparison).count(r"\begin{table*}") == formats.latex(comparison).count(r"\end{table*}") == 2
    assert formats.html_text(comparison).count("<table>") == 2


def test_csv_has_the_tests() -> None:
    _, kd, _ = csv.DictReader(io.StringIO(formats.csv_text(compared(WIDE))))
    test = scipy.stats.ttest_rel(WIDE["kd"], WIDE["student"])
    assert kd["baseline"] == "student"
    assert float(kd["p"]) == pytest.approx(test.pvalue, rel=1e-5)
    assert float(kd["p_holm"]) == pytest.approx(2 * test.pvalue, rel=1e-5)
    assert float(kd["to_baseline_ci_low"]) == pytest.approx(test.confidence_interval().low, rel=1e-5)

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
    assert student["95 % CI"] == f"[{ci.low:.2f}, {ci.high:.2f}]" and student["vs student"] == ""
    test = scipy.stats.ttest_rel(WIDE["kd"], WIDE["student"])
    assert 0.0001 < test.pvalue * 2 < 0.001
    assert kd["vs student"] == "+2.03 ± 0.06 ***" and kd["seeds to tell"] == ""
    assert crd["vs student"] == "+0.07 ± 0.32", "no mark"
    needed = ours.seeds_needed(comparison.rows[2].to_baseline, 0.05 / 2)
    assert needed and crd["seeds to tell"] == str(needed) and comparison.rows[2].seeds_to_tell == needed
    text = "\n".join(next(tables_text.sections(comparison, None)).remarks)
    assert "Paired t-test against student, Holm-corrected over a pair's methods: * p < 0.05, ** p < 0.01" in text


def test_intervals_are_of_three_seeds_and_within_what_a_score_can_be() -> None:
    two = compared({m: v[:2] for m, v in WIDE.items()})
    assert "95 %" not in formats.markdown(two)
    assert all(row.last_interval is None for row in two.rows)
    assert two.rows[1].tested and two.rows[1].tested.interval is None, "tested all the same"
    low, high = compared({"student": (0.1, 0.5, 2.0), "kd": (98.0, 99.9, 99.8)}).rows
    assert low.last_interval and high.last_interval
    assert low.last_interval.low == 0 and high.last_interval.high == 100
    whole = scipy.stats.ttest_1samp((98.0, 99.9, 99.8), 0).confidence_interval()
    assert high.last_interval.low == pytest.approx(whole.low)


@pytest.mark.parametrize(
    ("uses", "reference"),
    [
        ({"student": "student", "kd": "kd", "kd_t4": "kd"}, "kd"),
        ({"student": "student", "kd_t4": "kd"}, "kd_t4"),
        ({"student": "student", "kd": "dkd", "soft": "kd"}, "soft"),
        ({"student": "student", "kd_t4": "kd", "kd_t8": "kd"}, None),
        ({"student": "student", "crd": "crd"}, None),
    ],
)
def test_the_reference_is_the_entry_that_uses_kd(uses: dict[str, str], reference: str | None) -> None:
    cells = [Cell("t", "s", m, seed, f"{m}-{seed}", None) for m in uses for seed in range(3)]
    science = '{{"method":{{"params":{{}},"use":"{}","version":1,"weights":{{}}}}}}'
    rows = [row(f"{c.method}-{c.seed}", 60.0 + c.seed, 61.0, science=science.format(uses[c.method])) for c in cells]
    sweep = replace(contents((), 0), cells=tuple(cells))
    compared = comparison.compare(sweep, table(rows))
    assert compared.reference == reference
    assert [r.method for r in compared.rows if r.to_reference] == [m for m in uses if reference and m != reference]


def test_marks_are_after_the_correction() -> None:
    """A raw p below 0.05 that the correction raises above it gets no mark."""
    comparison = compared({**WIDE, "kd": (60.5, 61.5, 60.8)})
    kd = comparison.rows[1].tested
    assert kd and kd.p < 0.05 < kd.p_holm
    assert cells_of(formats.markdown(comparison))[1]["vs student"] == "+0.70 ± 0.20"


def test_a_method_that_is_worse_is_marked_otherwise_than_one_that_is_better() -> None:
    comparison = compared({**WIDE, "kd": (50.5, 51.5, 50.8), "crd": (70.5, 71.5, 70.8)})
    _, kd, crd = cells_of(formats.markdown(comparison))
    assert kd["vs student"].endswith(" †††") and crd["vs student"].endswith(" ***")
    tex, note = formats.latex(comparison), "A method that is worse has daggers ({}) in place of stars."
    assert r"\textsuperscript{$\dagger$$\dagger$$\dagger$}" in tex and r"\textsuperscript{***}" in tex
    assert note.format(r"$\dagger$") in tex and note.format("†") in formats.html_text(comparison)
    assert "dagger" not in formats.markdown(compared({**WIDE, "kd": (70.5, 71.5, 70.8)}))


def test_one_seed_has_neither_intervals_nor_tests() -> None:
    text = formats.markdown(compared({m: v[:1] for m, v in WIDE.items()}))
    assert "95 %" not in text and "t-test" not in text


def test_another_baseline_takes_the_students_place() -> None:
    comparison = compared(WIDE, baseline="crd")
    student, kd, crd = cells_of(formats.markdown(comparison))
    assert "vs student" not in student and "vs kd" in student
    assert crd["vs crd"] == "" and kd["vs crd"].startswith("+1.97")
    kd_first = cells_of(formats.markdown(compared(WIDE, baseline="kd")))[0]
    assert [name for name in kd_first if name.startswith("vs ")] == ["vs kd"]
    assert comparison.rows[0].student_score == pytest.approx(60.2333333), "what the student has alone"


def two_pairs() -> Comparison:
    tops = {
        "small": {"student": (60.0, 61.0, 60.5), "kd": (62.0, 63.0, 64.0)},
        "large": {"student": (60.0, 61.0, 60.5), "kd": (59, 60.5, 60.2)},
    }
    cells = [Cell(t, "s", m, i, f"{t}{m}{i}", None) for t, ms in tops.items() for m in ms for i in range(3)]
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
            assert [r["p_better"] for r in rows] == ["", "0.638889", "", "0.638889"]
            assert float(rows[1]["p_better_ci_low"]) < 0.638889 < float(rows[1]["p_better_ci_high"])
        else:
            assert tables_text.RANKS in text and "Agarwal et al. 2021" in text
    _, ranks = tables_text.sections(comparison, None)
    assert [line[:3] for line in ranks.lines] == [
        ("over", "method", "average rank"),
        ("2 pairs", "student", "1.50 [1.50, 2.00]"),
        ("2 pairs", "kd", "1.50 [1.00, 1.50]"),
    ]
    assert ranks.lines[2][3].startswith("0.64 [")
    assert formats.latex(comparison).count(r"\begin{table*}") == formats.latex(comparison).count(r"\end{table*}") == 2
    assert formats.html_text(comparison).count("<table>") == 2


def test_csv_has_the_tests() -> None:
    _, kd, _ = csv.DictReader(io.StringIO(formats.csv_text(compared(WIDE))))
    test = scipy.stats.ttest_rel(WIDE["kd"], WIDE["student"])
    assert kd["baseline"] == "student"
    assert float(kd["p"]) == pytest.approx(test.pvalue, rel=1e-5)
    assert float(kd["p_holm"]) == pytest.approx(2 * test.pvalue, rel=1e-5)
    assert float(kd["to_baseline_ci_low"]) == pytest.approx(test.confidence_interval().low, rel=1e-5)

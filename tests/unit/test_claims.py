"""Claims: the verdict that follows from the records, through the commands, and what is refused."""

import contextlib
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
import yaml
from statsmodels.stats.multitest import multipletests

from harness.planning.plan import plan_sweep
from harness.reporting.claim_outcomes import ClaimedSlope, ComparedMethods, Outcome, SlopeOutcome, outcomes_of
from harness.reporting.gap_slopes import GapLine
from harness.reporting.statistics import Spread
from harness.store import records
from tests.support.cli import run_command
from tests.support.comparisons import compared, row

SWEEP: dict[str, Any] = {
    "dataset": "digits",
    "recipe": "digits_quick",
    "methods": ["student", "kd", "fitnets"],
    "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4"}],
    "seeds": 3,
}
PAIR = {"teacher": "digits_net_w8", "student": "digits_net_w4"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLAIM: dict[str, Any] = {
    "statement": "KD and FitNets are better than *nothing*.",
    "table": "small",
    "sweep": "small.yaml",
    "command": "python -m harness.sweep small.yaml",
    "commits": [COMMIT],
    "hardware": ["a processor"],
    "seeds": [0, 1, 2],
    "comparisons": [{**PAIR, "better": m, "than": "student"} for m in ("kd", "fitnets")],
    "test": "paired t-test over seeds, Holm over the comparisons, p < 0.01",
}
FOLDER = "2026-11-30-kd-above-student"
GAINS = {"student": 0.0, "kd": 5.0, "fitnets": 0.05}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a sweep and a store: its made-up records and its table."""
    folder = tmp_path_factory.mktemp("stored")
    with contextlib.chdir(folder):
        Path("small.yaml").write_text(yaml.safe_dump(SWEEP))
        planned = plan_sweep(Path("small.yaml"), Path("results"))
        cells = {cell.run_id: cell for cell in planned.plan.cells}
        for run_id, run in planned.plan.runs.items():
            cell = cells.get(run_id)
            top1 = 60 + GAINS[cell.method] + cell.seed + 0.1 * math.sin(len(cell.method) * cell.seed) if cell else 90.0
            curves = [{"epoch": 1, "name": "test_top1", "value": top1}]
            made = {"science": run.science.text, "git_commit": COMMIT, "hardware": "a processor", "git_dirty": False}
            records.write_record(planned.store, row(run_id, top1, 99.0, curves=curves, **made))
        assert run_command("report", "small.yaml", "--out", "results/tables").code == 0
    return folder


@pytest.fixture
def home(stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of that folder with a claim."""
    monkeypatch.chdir(shutil.copytree(stored, tmp_path / "home"))
    write_claim()
    return Path()


def write_claim(folder: str = FOLDER, **changes: Any) -> None:
    path = Path("results/claims") / folder / "claim.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({**CLAIM, **changes}, sort_keys=False))


def write_verdicts() -> Any:
    return run_command("report", "--claims", "results/claims")


def test_a_verdict_follows_from_the_records_and_verify_computes_it_again(home: Path) -> None:
    result = write_verdicts()
    log, verdict = (Path("results/claims") / FOLDER / name for name in ("log.txt", "verdict.md"))
    assert result.code == 0 and result.out.split() == [str(log), str(verdict)]
    text = verdict.read_text()
    assert text.startswith("# Verdict: not told apart\n") and r"than \*nothing\*" in text
    kd, fitnets = (line for line in text.splitlines() if line.startswith("| digits_net_w8"))
    assert kd.endswith(" better |") and "+5." in kd and fitnets.endswith(" not told apart |")
    assert "3 seeds" in text and COMMIT in text and "a processor" in text and "2026-01-01 to 2026-01-02" in text
    lines = log.read_text().splitlines()
    assert sum(line.startswith("run ") for line in lines) == 9 and f"  commit {COMMIT}" in lines
    assert any(line.startswith("  test_top1 by epoch: 1 6") for line in lines)
    assert run_command("verify").code == 0
    verdict.write_text(text.replace("# Verdict: not told apart", "# Verdict: holds"))
    log.unlink()
    result = run_command("verify")
    assert result.code == 1 and result.out.count("DIFFERENT") == 2
    assert f"{FOLDER}/verdict.md: line 1: '# Verdict: holds" in result.out
    assert f"{FOLDER}/log.txt: is missing" in result.out


def test_outcomes_are_those_of_scipy_and_statsmodels() -> None:
    tops = {
        "student": (60.0, 61.5, 60.2),
        "kd": (63.0, 64.7, 63.1),
        "dkd": (60.5, 61.0, 61.0),
        "same": (61.0, 62.5, 61.2),
    }
    comparison = compared(tops)
    rows = {r.line: r for r in comparison.rows}
    claimed = [ComparedMethods(teacher="t", student="s", better=m, than="student") for m in ("kd", "dkd", "same")]
    tests = [scipy.stats.ttest_rel(tops[m], tops["student"]) for m in ("kd", "dkd")]
    ps = [*(test.pvalue for test in tests), 1.0]
    got, _ = outcomes_of(claimed, (), rows, comparison)
    assert [o.p for o in got] == [pytest.approx(ps[0]), pytest.approx(ps[1]), None]
    assert [o.p_holm for o in got] == pytest.approx(list(multipletests(ps, method="holm")[1]))
    assert got[0].interval is not None and got[0].interval.low == pytest.approx(tests[0].confidence_interval().low)
    assert [o.verdict for o in got] == ["better", "not told apart", "not told apart"], "equal differences have no test"


@pytest.mark.parametrize(
    ("mean", "p_holm", "verdict"),
    [(1.0, 0.00999, "better"), (1.0, 0.01, "not told apart"), (-1.0, 0.00999, "worse"), (-1.0, 0.01, "not told apart")],
)
def test_a_verdict_is_strict_at_its_border(mean: float, p_holm: float, verdict: str) -> None:
    methods = ComparedMethods(teacher="t", student="s", better="kd", than="student")
    assert Outcome(methods, Spread(mean, 1.0, 3), None, 0.001, p_holm).verdict == verdict


@pytest.mark.parametrize(
    ("slope", "p_holm", "verdict"),
    [(0.5, 0.00999, "grows"), (0.5, 0.01, "not told apart"), (-0.5, 0.00999, "shrinks"), (-0.5, 1.0, "not told apart")],
)
def test_a_verdict_on_a_slope_is_strict_too(slope: float, p_holm: float, verdict: str) -> None:
    line = GapLine("kd", "student", {}, (), (), (), Spread(slope, 0.1, 3), None)
    assert SlopeOutcome(ClaimedSlope(student="s", method="kd", over="student"), line, 0.001, p_holm).verdict == verdict


def other_comparison(**changes: str) -> dict[str, Any]:
    return {"comparisons": [{**CLAIM["comparisons"][0], **changes}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": [0]}, "unknown key 'seed'; did you mean 'seeds'?"),
        ({"test": "by eye"}, ": test: must be 'paired t-test over seeds"),
        ({"comparisons": []}, ": expected comparisons or slopes, or both"),
        ({"table": "smal"}, ":2: table: unknown table of this store 'smal'; did you mean 'small'?"),
        ({"sweep": "other.yaml"}, ":3: sweep: the table small is of small.yaml, found other.yaml"),
        ({"commits": ["0123"]}, f":5: commits: the records have [{COMMIT}], found [0123]"),
        ({"hardware": ["a GPU"]}, "hardware: the records have [a processor], found [a GPU]"),
        ({"seeds": [0, 1]}, "seeds: a claim counts all seeds of its table; digits_net_w8 > digits_net_w4, student has"),
        (other_comparison(better="kdd"), "comparisons.0.better: unknown method of small 'kdd'; did you mean 'kd'?"),
        (other_comparison(teacher="digits_net_w16"), "comparisons.0.teacher: unknown teacher of small"),
        (other_comparison(than="kd"), "comparisons.0.than: expected another method than kd"),
        (
            {"slopes": [{"student": "digits_net_w4", "method": "kd", "over": "student"}]},
            "slopes.0: a slope needs both methods under 3 teachers of different known sizes",
        ),
        (
            {"slopes": [{"student": "digits_net_w4", "method": "kd", "over": "fitnet"}]},
            "slopes.0.over: unknown method of small 'fitnet'; did you mean 'fitnets'?",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_claim_that_is_not_about_the_records_is_refused(home: Path, changes: dict[str, Any], message: str) -> None:
    write_claim(**changes)
    error = write_verdicts().error
    assert f"{FOLDER}/claim.yaml" in error and message in error
    assert not (Path("results/claims") / FOLDER / "verdict.md").exists()


def missing_record() -> None:
    planned = plan_sweep(Path("small.yaml"), Path("results"))
    run_id = next(cell.run_id for cell in planned.plan.cells if (cell.method, cell.seed) == ("kd", 1))
    planned.store.record(run_id).unlink()


def unlike_protocols() -> None:
    changed = {**SWEEP, "methods": {"student": {}, "fitnets": {}, "kd": {"recipe": {"epochs": 5}}}}
    Path("small.yaml").write_text(yaml.safe_dump(changed))
    assert run_command("report", "small.yaml", "--mix-protocols", "--out", "results/tables").code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (missing_record, "seeds: digits_net_w8 > digits_net_w4, kd: no result in this store at [1]"),
        (unlike_protocols, "comparisons.0: different protocols: kd: epochs 5; student: the table's"),
        (lambda: write_claim("2026-12-01-again"), "2026-12-01-again claims something about it too"),
        (lambda: write_claim("2026-13-01-no-date"), "2026-13-01-no-date: expected a name such as 2026-11-30-kd"),
    ],
)
def test_what_is_no_fair_comparison_is_refused(home: Path, change: Callable[[], None], message: str) -> None:
    change()
    result = run_command("verify")
    assert result.code == 1 and "DAMAGED" in result.out and message in result.out


def test_a_table_of_chosen_seeds_is_refused(home: Path) -> None:
    assert run_command("report", "small.yaml", "--only", "seed=0,2", "--out", "results/tables").code == 0
    (chosen,) = (path.name for path in Path("results/tables").glob("small-*"))
    write_claim(table=chosen, seeds=[0, 2])
    text = "seeds: a claim counts all seeds; the table small has more of digits_net_w8 > digits_net_w4, kd"
    assert text in write_verdicts().error


def test_claims_are_of_a_store(home: Path) -> None:
    assert "no claim: expected folders" in run_command("report", "--claims", "nowhere").error
    error = run_command("report", "small.yaml", "--claims", "results/claims").error
    assert "--claims reads the store's tables: give it without a sweep file" in error
    for option in (["--fidelity"], ["--gap"], ["--paper"], ["--out", "tables"]):
        assert "give it with --results alone" in run_command("report", "--claims", "results/claims", *option).error

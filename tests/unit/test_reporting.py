"""Tables against a plain computation, and their formats."""

import csv
import html.parser
import io
import math
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UserError
from harness.reporting import comparison
from harness.reporting.comparison import Comparison, Contents, Row, Spread
from harness.reporting.tables import formats
from harness.spec.tasks.detection import TASK as DETECTION
from harness.store import records
from harness.store.schema import FIDELITY_COLUMNS
from harness.store.store import Store
from tests.support.comparisons import contents, invented_id, row, table
from tests.support.latex import tex_lines

TOP1 = st.none() | st.floats(0, 100, allow_nan=False)  # None: diverged
METHODS = ("student", "kd", "crd")


@settings(deadline=None)
@given(st.data(), st.integers(1, 5))
def test_means_deviations_and_paired_differences(data: st.DataObject, seeds: int) -> None:
    values = {
        (m, s): (data.draw(TOP1), data.draw(st.floats(0, 100)))
        for m in METHODS
        for s in range(seeds)
        if data.draw(st.booleans(), label=f"{m}-{s} has a record")
    }
    rows = [
        row(f"{m}-{s}", last, best, status="done" if last is not None else "diverged")
        for (m, s), (last, best) in values.items()
    ]
    rows_by_method = {r.method: r for r in comparison.compare(contents(METHODS, seeds), table(rows)).rows}

    def agrees(spread: Spread | None, expected: list[float]) -> None:
        if not expected:
            assert spread is None
            return
        assert spread is not None
        n, mean = len(expected), math.fsum(expected) / len(expected)
        assert spread.n == n and math.isclose(spread.mean, mean, abs_tol=1e-9)
        if n == 1:
            assert spread.std is None
        else:
            std = math.sqrt(math.fsum((v - mean) ** 2 for v in expected) / (n - 1))
            assert spread.std is not None and math.isclose(spread.std, std, rel_tol=1e-6, abs_tol=1e-6)

    for m in METHODS:
        last = {s: v[0] for (k, s), v in values.items() if k == m and v[0] is not None}
        agrees(rows_by_method[m].last, list(last.values()))
        agrees(rows_by_method[m].best, [v[1] for (k, _), v in values.items() if k == m and v[0] is not None])
        for spread, other in ((rows_by_method[m].to_baseline, "student"), (rows_by_method[m].to_reference, "kd")):
            theirs = {s: v[0] for (k, s), v in values.items() if k == other and v[0] is not None}
            agrees(spread, [] if m == other else [last[s] - theirs[s] for s in last if s in theirs])
        assert rows_by_method[m].missing == sum((m, s) not in values for s in range(seeds))
        assert rows_by_method[m].diverged == sum(k == m and v[0] is None for (k, _), v in values.items())


def example(note: str = "a note") -> Comparison:
    methods = ("student", "kd", "crd")
    tops = {"student": (60.0, 61.5), "kd": (62.25, 63.0), "crd": (64.0, 66.0)}
    rows = [
        row(f"{m}-{s}", last + s, best + 2 * s)
        for m, (last, best) in tops.items()
        for s in range(3)
        if (m, s) != ("crd", 1)
    ]
    return comparison.compare(contents(methods, 3, note), table(rows))


def test_columns_hold_one_metric_each() -> None:
    """Columns show the last epoch, except the one named `best`."""
    lines = formats.markdown(example()).splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines[:5] if not line.startswith("|--")]
    columns = dict(zip(cells[0], zip(*cells[1:], strict=True), strict=True))
    assert columns["top-1 last"] == ("61.00 ± 1.00", "63.25 ± 1.00", "65.00 ± 1.41")
    assert columns["top-1 best"] == ("63.50 ± 2.00", "65.00 ± 2.00", "68.00 ± 2.83")
    assert columns["vs student"] == ("", "+2.25 ± 0.00", "+4.00 ± 0.00"), "differences of the last epoch"
    assert columns["vs kd"] == ("-2.25 ± 0.00", "", "+1.75 ± 0.00")
    assert columns["seeds"] == ("3", "3", "2/3")


@pytest.mark.parametrize("texts", [(None, '{"std": 1}'), (None, None)])
def test_a_line_whose_record_with_the_science_vanishes_is_shown(texts: tuple[str | None, ...]) -> None:
    rows = [row(f"kd-{seed}", 50.0, 50.0, science=text) for seed, text in enumerate(texts)]
    sciences = comparison.compare(contents(("kd",), len(texts)), table(rows)).sciences
    assert list(sciences.values()) == [text for text in texts if text]


def test_missing_and_diverged_runs_are_listed_under_the_table() -> None:
    rows = [row("student-0", 60.0, 61.0), row("kd-0", None, 50.0, status="diverged")]
    compared = comparison.compare(contents(("student", "kd", "crd"), 1), table(rows))
    for text in (formats.markdown(compared), formats.html_text(compared).replace("&gt;", ">")):
        assert "Without a record: 1 of 3 runs: crd." in text
        assert "Diverged, and in no mean: 1 of 3 runs: kd." in text
    assert "Without a record: 1 of 3 runs: crd." in formats.latex(compared)


class _Text(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_every_format_shows_the_same_figures() -> None:
    compared = example()
    page = _Text()
    page.feed(formats.html_text(compared))
    markdown = [
        [c.strip() for c in line[1:-1].split("|")]
        for line in formats.markdown(compared).splitlines()
        if line.startswith("| ")
    ]
    shown = [[cell for cell in (c.strip() for c in r)] for r in page.rows]
    assert [r[:8] for r in shown] == [r[:8] for r in markdown]
    lines = tex_lines(formats.latex(compared))
    assert list(lines) == [(pair, method) for pair, method, *_ in markdown[1:]]
    assert all(set(cells) - {""} == lines[pair, method] - {""} for pair, method, *cells in markdown[1:])
    for got, r in zip(csv.DictReader(io.StringIO(formats.csv_text(compared))), compared.rows, strict=True):
        assert (got["teacher"], got["student"], got["method"]) == (r.teacher, r.student, r.method)
        assert r.last and r.best
        assert float(got["last_top1_mean"]) == r.last.mean and float(got["best_top1_mean"]) == r.best.mean
        assert got["run_ids"].split() == list(r.run_ids)


HOSTILE = (
    r"</p><script>alert(1)</script> <img src=x onerror=y> & &amp; \input{x} $x$ 50% #_{}~^ \\",
    "first\n\n\\end{table}\tlast\x1b[31m\x00",
)


@pytest.mark.parametrize("note", HOSTILE)
def test_a_hostile_note_stays_text(note: str) -> None:
    comparison_with_note = example(note)
    page = _Text()
    page.feed(formats.html_text(comparison_with_note))
    assert not {"script", "img", "b"} & set(page.tags)
    printable = " ".join("".join(c if c.isprintable() else " " for c in note).split())
    assert printable in page.text
    tex = formats.latex(comparison_with_note)
    (shown,) = (line for line in tex.splitlines() if "Note: " in line)
    assert "\n\n" not in tex
    allowed = r"\\(allowbreak\{\}|textbackslash\{\}|textasciitilde\{\}|textasciicircum\{\}|[&%$#_{}])|\$(>|<|\\pm)\$"
    remainder = re.sub(allowed, "", shown.removeprefix(r"{\footnotesize\raggedright ").removesuffix(r"\par}"))
    assert not set(remainder) & set("\\&%$#_{}~^<>"), remainder
    for text in (*(f(comparison_with_note) for f in formats.FORMATS.values()),):
        assert all(c.isprintable() or c == "\n" for c in text)


NAMES = st.text("abAB019_.+-", min_size=1, max_size=12)


@settings(deadline=None)
@given(NAMES, NAMES, st.text(max_size=60))
def test_markdown_keeps_its_shape(teacher: str, method: str, note: str) -> None:
    spread = Spread(1.0, None, 1)
    one = Row(teacher, "s", method, spread, None, None, spread, None, None, None, (), None, 0, 0, ("r",))
    comparison_with_note = Comparison(Contents("n", note, "digits", (1,), ()), (one,), 1, "test", None)
    lines = formats.markdown(comparison_with_note).splitlines()
    assert {line.count("|") for line in lines[:3]} == {8 + 1}
    assert len({len(line) for line in lines[:3]}) == 1


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 7, 9])
def test_records_of_older_schema_versions_are_read(tmp_path: Path, version: int) -> None:
    store, run_id = Store(tmp_path), invented_id(0)
    records.write_record(store, row(run_id, 60.0, 61.0))
    path = store.record(run_id)
    new = pq.read_table(path)
    younger = ["cost_waiting_s", *(FIDELITY_COLUMNS if version < 8 else ())]
    if version < 6:
        younger += [
            "teacher_top5",
            "teacher_loss",
            *(n for n in new.column_names if n.split("_")[-1] in DETECTION.metrics),
        ]
    old = new.drop_columns([*younger, *(["retries"] if version < 9 else [])])
    if version < 5:
        old = old.drop_columns(["warnings"])
    if version < 4:
        old = old.drop_columns(["evaluated_parameters"])
    if version < 3:
        old = old.drop_columns(["evaluated_on"]).rename_columns({"evaluated_size": "test_size"})
    if version == 1:
        old = old.drop_columns(["cost_first_stage_s"])
    pq.write_table(old, path)
    expected = new.to_pylist()[0] | dict.fromkeys(younger) | ({"cost_first_stage_s": 0.0} if version == 1 else {})
    assert records.read_records(store, [run_id]).to_pylist() == [expected]
    pq.write_table(old.drop_columns(["threads"]), path)
    with pytest.raises(UserError, match="not a readable record"):
        records.read_records(store, [run_id])


def test_a_record_whose_lists_have_no_texts_is_named(tmp_path: Path) -> None:
    store, run_id = Store(tmp_path), invented_id(0)
    records.write_record(store, row(run_id, 60.0, 61.0, retries=["retried", None]))
    with pytest.raises(UserError, match=f"{run_id}.*retries: an entry without a text"):
        records.read_records(store, [run_id])


# with a store --------------------------------------------------------------------------------------------------------

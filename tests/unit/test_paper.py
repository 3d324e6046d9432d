"""Tables as papers print them: marks, published numbers, formats, and the command that reproduces each cell."""

import csv
import html.parser
import io
import json
import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import printable
from harness.planning.plan import Planned, plan_sweep
from harness.reporting import comparison
from harness.reporting.comparison import Comparison, Contents
from harness.reporting.escape import escape_csv
from harness.reporting.paper import format, render
from harness.reporting.paper.table import Entry, Paper, paper, places
from harness.reporting.protocol_guard import RecipeChange
from harness.reporting.published.numbers import published_numbers
from harness.reporting.published.table import published_table
from harness.reporting.tables import formats, table_folder
from harness.spec import datasets
from harness.spec.sweep_plan import Cell
from harness.store import records
from tests.support.cli import run_command
from tests.support.comparisons import row, table
from tests.support.latex import log_of, needs_latex
from tests.support.sciences import make_science

SCIENCE = make_science("s", epochs=20).text
FORMATS = tuple(render.FORMATS)
HOSTILE = r"""<script>alert(1)</script> | a_b _c_ & &lt; \input{x} 50% #$~^ `x` *y* [z](u) " onclick="x' """
ADDRESS = "https://example.org/" + "a_long/path~of%20parts#x&y?" * 9

# made-up records ------------------------------------------------------------------------------------------------------

Tops = dict[
    tuple[str, str, str], list[float | None]
]  # (teacher, student, method) -> top-1 of each seed; None: diverged


def compared(tops: Tops, **more: Any) -> Comparison:
    """Return a comparison with these results. A line without any value has no record either."""
    cells = [
        Cell(*line, seed, f"{'-'.join(line)}-{seed}", None)
        for line, values in tops.items()
        for seed in range(max(2, len(values)))
    ]
    rows = [
        row(f"{'-'.join(line)}-{seed}", top, top, status="done" if top is not None else "diverged", science=SCIENCE)
        for line, values in tops.items()
        for seed, top in enumerate(values)
    ]
    return comparison.compare(Contents("made up", "", "digits", (20,), tuple(cells), **more), table(rows))


def one_pair(**tops: list[float | None]) -> Paper:
    return paper(compared({("t", "s", method): values for method, values in tops.items()}), None, None)


def entries(document: Paper) -> dict[str, Entry]:
    """Return the first column's entries by the labels of their lines."""
    return {line.label: line.entries[0] for line in document.lines}


def marked(document: Paper, place: str) -> set[str]:
    return {label for label, entry in entries(document).items() if entry.place == place}


@given(st.lists(st.floats(0, 100).map(lambda v: round(v, 3)) | st.sampled_from([70.004, 70.0049, 69.995]), max_size=6))
def test_the_best_and_the_second_are_those_of_the_printed_numbers(means: list[float]) -> None:
    printed = [float(f"{mean:.2f}") for mean in means]
    for value, place in zip(printed, places(means), strict=True):
        above = {other for other in printed if other > value}
        expected = ("best", "second")[len(above)] if len(above) < 2 and len(means) > 1 else ""
        assert place == expected


def test_the_student_and_the_teacher_take_no_place() -> None:
    document = one_pair(student=[99.0, 99.0], kd=[60.0, 62.0], crd=[70.0, 71.0], at=[50.0, 50.0])
    assert marked(document, "best") == {"crd"} and marked(document, "second") == {"kd"}
    assert [line.label for line in document.lines] == ["teacher", "student", "kd", "crd", "at"]


def test_equal_ones_share_a_place_and_a_single_one_has_none() -> None:
    document = one_pair(student=[60.0, 60.0], kd=[70.001, 70.0], crd=[70.0, 70.004], at=[65.0, 65.0])
    assert marked(document, "best") == {"kd", "crd"} and marked(document, "second") == {"at"}
    document = one_pair(student=[60.0, 60.0], kd=[70.0, 71.0], crd=[])
    assert not marked(document, "best") | marked(document, "second")


def test_the_student_comes_first_wherever_the_sweep_lists_it() -> None:
    assert [line.label for line in one_pair(kd=[60.0], student=[50.0]).lines] == ["teacher", "student", "kd"]


def test_what_is_missing_is_seen_and_counted() -> None:
    document = one_pair(student=[60.0, 61.0], kd=[70.0, 71.0], crd=[], at=[72.0], ft=[None, None])
    lines = {line.label: format.figure(line.entries[0], line) for line in document.lines}
    assert lines == {
        "teacher": "90.00", "student": "60.50 ± 0.71", "kd": "70.50 ± 0.71", "crd": "–", "at": "72.00 (1)", "ft": "–",
    }  # fmt: skip
    assert any("Of 10 numbers (pair, method, seed) 3 have no record" in n and "2 diverged" in n for n in document.notes)
    behind = [line for line in format.runs(document) if not line.startswith("python ")]
    assert "t > s, crd (2 without a record): t-s-crd-0 t-s-crd-1" in behind
    assert "t > s, ft (2 diverged): t-s-ft-0 t-s-ft-1" in behind
    assert "t > s, kd: t-s-kd-0 t-s-kd-1" in behind
    assert not any("no result" in note for note in one_pair(student=[1.0, 2.0], kd=[3.0, 4.0]).notes)


def test_lines_of_another_protocol_are_marked_and_take_no_place() -> None:
    tops: Tops = {("t", "s", m): [60.0 + i, 60.5 + i] for i, m in enumerate(("student", "kd", "at", "crd"))}
    change = RecipeChange("t", "s", "crd", "epochs 5", True)
    comparison = paper(compared(tops, recipe_changes=(change,)), None, None)
    assert entries(comparison)["crd"].unlike == "(a)" and marked(comparison, "best") == {"at"}
    assert any("(a) epochs 5" in note for note in comparison.notes)
    for form in FORMATS:
        assert "(a)" in render.FORMATS[form](comparison)


def test_a_change_of_recipe_that_every_pair_has_is_noted_once() -> None:
    tops: Tops = {(t, "s", m): [60.0, 61.0] for t in ("t", "tt") for m in ("student", "kd", "at")}
    changes = [RecipeChange(t, "s", "kd", "lr 0.1", False) for t in ("t", "tt")]
    changes.append(RecipeChange("tt", "s", "at", "epochs 5", False))
    (note,) = (
        n for n in paper(compared(tops, recipe_changes=tuple(changes)), None, None).notes if "another recipe" in n
    )
    assert note == "Trained with another recipe than the rest: kd on every pair: lr 0.1; tt > s, at: epochs 5."


def test_a_dataset_that_is_unknown_here_is_shown_as_a_classifiers() -> None:
    known = compared({("t", "s", "student"): [60.0, 61.0], ("t", "s", "kd"): [70.0, 71.0]})
    unknown = replace(known, contents=replace(known.contents, dataset="cifar1000"))
    numbers = published_numbers("cifar100")
    document = paper(unknown, published_table(unknown, numbers), numbers)
    assert (
        document.metrics == ("top1",)
        and entries(document)["kd"].spread == entries(paper(known, None, None))["kd"].spread
    )
    for form in FORMATS:
        assert "cifar1000" in render.FORMATS[form](document)


def test_a_method_that_a_pair_has_not_is_an_empty_cell() -> None:
    document = paper(
        compared({("t", "s", "student"): [1.0, 2.0], ("t", "s", "kd"): [2.0, 3.0], ("u", "s", "student"): [1.0, 2.0]}),
        None,
        None,
    )
    kd = next(line for line in document.lines if line.label == "kd")
    assert kd.entries[1] == Entry() and format.figure(kd.entries[1], kd) == "–"
    for form in FORMATS:
        assert render.FORMATS[form](document)


def test_stars_are_those_of_the_corrected_test() -> None:
    tops: Tops = {
        ("t", "s", "student"): [60.0, 61.0, 60.4],
        ("t", "s", "kd"): [65.0, 66.1, 65.4],
        ("t", "s", "at"): [60.1, 61.0, 60.3],
        ("t", "s", "ft"): [55.0, 56.1, 55.4],
    }
    cells = [Cell(*line, seed, f"{line[2]}-{seed}", None) for line in tops for seed in range(3)]
    rows = [row(f"{m}-{i}", v, v, science=SCIENCE) for (_, _, m), values in tops.items() for i, v in enumerate(values)]
    by_method = entries(
        paper(comparison.compare(Contents("n", "", "digits", (20,), tuple(cells)), table(rows)), None, None)
    )
    tested = by_method["kd"].tested
    assert tested and tested.p_holm < 0.001 and format.marks(by_method["kd"]) == "***"
    assert by_method["at"].tested and format.marks(by_method["at"]) == "" and format.marks(by_method["student"]) == ""
    assert format.marks(by_method["ft"]) == "†††", "a worse one is marked otherwise than a better one"


def wide(pairs: int, teacher: str = "t") -> Comparison:
    methods = ("student", "kd", "crd")
    return compared({(f"{teacher}{i}", "s", m): [60.0 + i, 61.0] for i in range(pairs) for m in methods})


@pytest.mark.parametrize(("pairs", "widths"), [(1, [1]), (7, [7]), (8, [4, 4]), (14, [7, 7]), (15, [5, 5, 5])])
def test_wide_tables_are_broken_into_blocks(pairs: int, widths: list[int]) -> None:
    assert [len(block) for block in format.blocks(paper(wide(pairs), None, None))] == widths


def test_a_pairs_metrics_stay_together() -> None:
    document = wide(4)
    imagenet = paper(
        replace(document, contents=replace(document.contents, dataset="imagenet")), None, published_numbers("imagenet")
    )
    assert [[c.metric for _, c in block] for block in format.blocks(imagenet)] == [["top1", "top5"] * 2] * 2


# the formats ----------------------------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """The text of a page's table cells, and its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.titles: list[str] = []
        self.attributes: set[str] = set()
        self._cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True
        if tag == "td":
            self.titles.append(dict(attrs)["title"])

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1][-1] += data


def example() -> Paper:
    tops: Tops = {
        (t, "s", m): [60.0 + len(t + m), 61.5 + len(m)] for t in ("t", "tt") for m in ("student", "kd", "crd")
    }
    return paper(compared(tops), None, None)


def plain_latex(tex: str) -> str:
    """Return LaTeX without the commands that only style it."""
    bare = re.sub(r"\\(?:textbf|underline)\{([^}]*)\}", r"\1", tex)
    return re.sub(r"\{\\scriptsize\\,([^}]*)\}", r" \1", bare).replace(r"$\pm$", "±")


def test_every_format_shows_the_same_figures() -> None:
    document = example()
    figures = [[format.figure(e, line) for e in line.entries] for line in document.lines]
    markdown = [
        line.strip("|").split("|")[1:] for line in render.markdown(document).splitlines() if line.startswith("| ")
    ]
    plain = [[re.sub(r"\*\*|</?ins>", "", cell).strip() for cell in line] for line in markdown]
    assert plain == [["t > s", "tt > s"], *figures]
    assert Page(render.html_text(document)).rows[2:] == [
        [line.label, *cells] for line, cells in zip(document.lines, figures, strict=True)
    ]
    body = [line for line in render.latex(document).splitlines() if "&" in line and "multicolumn" not in line]
    assert [plain_latex(line).removesuffix(r" \\").split(" & ")[1:] for line in body] == figures
    cells = [e for line in document.lines for e in line.entries]
    for got, e in zip(csv.DictReader(io.StringIO(render.csv_text(document))), cells, strict=True):
        assert e.spread and e.rerun
        assert (float(got["mean"]), int(got["n"]), got["place"]) == (e.spread.mean, e.spread.n, e.place)
        assert (got["run_ids"].split(), got["command"]) == (list(e.rerun.run_ids), e.rerun.command)


def test_the_best_is_bold_and_the_second_underlined() -> None:
    document = example()
    means = {
        p: {f"{e.spread.mean:.2f}" for ln in document.lines for e in ln.entries if e.spread and e.place == p}
        for p in ("best", "second")
    }
    for form, bold, underlined in (
        ("md", r"\*\*(\d\S*)[^*|]*\*\*", r"<ins>(\S+).*?</ins>"),
        ("tex", r"\\textbf\{(.*?)\}", r"\\underline\{(.*?)\}"),
        ("html", r"<strong>(\S+).*?</strong>", r"<u>(\S+).*?</u>"),
    ):
        text = render.FORMATS[form](document)
        assert set(re.findall(bold, text)) == means["best"] and set(re.findall(underlined, text)) == means["second"]


def test_every_cell_lists_its_runs_and_command_in_every_format() -> None:
    document = example()
    page = Page(render.html_text(document))
    reruns = [e.rerun for line in document.lines for e in line.entries if e.rerun]
    assert page.titles == [f"{' '.join(r.run_ids)}\n{r.command}" for r in reruns]
    for form in FORMATS:
        text = render.FORMATS[form](document)
        for rerun in reruns:
            assert " ".join(rerun.run_ids) in text and rerun.command in text, form


@pytest.mark.parametrize("name", [HOSTILE, "a\nb\x1b[31m", "__init__", "-rf"])
def test_hostile_names_stay_text(name: str) -> None:
    """A contents.json from elsewhere may hold hostile names; sweep files are checked."""
    tops: Tops = {("t", name, m): [60.0 + i, 61.0 + i] for i, m in enumerate(("student", name, "crd"))}
    comparison = compared(tops)
    document = paper(replace(comparison, contents=replace(comparison.contents, note=name, name=name)), None, None)
    page = Page(render.html_text(document))
    assert not {"script", "img", "b"} & set(page.tags)
    assert page.attributes <= {"charset", "class", "content", "lang", "name", "scope", "title"}
    assert printable(name) in {"".join(row[:1]) for row in page.rows}
    text = render.markdown(document)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1, "as many cells in each line"
    outside = re.sub(r"(?s)<details>.*", "", text)
    assert not re.search(r"(?<!\\)<script", outside) and not re.search(r"(?<!\\)`", outside)
    tex = [line for line in render.latex(document).splitlines() if not line.startswith("%")]
    assert r"\input{" not in "\n".join(tex) and "\x1b" not in "\n".join(tex)
    comments = [line for line in render.latex(document).splitlines() if line.startswith("%")]
    assert len(comments) == 2 + 2 * len(document.lines), "a name does not end a comment"
    assert [r["method"] for r in csv.DictReader(io.StringIO(render.csv_text(document)))][2] == escape_csv(name)


def test_markdown_leaves_ordinary_names_unchanged() -> None:
    text = render.markdown(one_pair(student=[60.0], kd_hot=[61.0], kd_cold=[62.0]))
    assert "| kd_hot " in text and "\\" not in text.partition("<details>")[0]


@needs_latex
def test_latex_compiles_and_fits_its_page(home: None) -> None:
    """One document for all, as a compiler takes half a second to start."""
    finish(CIFAR)
    hostile = compared({("t|", "s_", m): [60.0, 61.0 + len(m)] for m in ("student", HOSTILE, "a&b")})
    hostile = replace(
        hostile,
        contents=replace(
            hostile.contents, name="h", note=f"{HOSTILE} [x] − × → ≤ ≥ † ↑ ↓ τ café cafe\u0301 知 \U0001f600 {ADDRESS}"
        ),
    )
    many = {(f"a_teacher_with_a_long_name_{i}", "s", f"m{k}"): [60.0, 61.0 + k] for i in range(5) for k in range(48)}
    short = {(f"package.module:Net(width={i}, names={'x' * 60})", "s", m): [60.0] for i in range(13) for m in "abc"}
    long = compared(many, idle_settings=("a sentence that is long " * 300,))
    tex = "".join(Path(f"results/tables/cifar/{name}.tex").read_text() for name in ("paper", "table"))
    pairs = compared(short)
    pairs = replace(pairs, contents=replace(pairs.contents, name="pairs"))
    for shown in (hostile, pairs, replace(long, contents=replace(long.contents, name="long"))):
        tex += render.latex(paper(shown, None, None)) + formats.latex(shown)
    for options in ("", "twocolumn"):
        log = log_of(tex, Path(), options)
        assert "Overfull" not in log and "too large" not in log
        assert "undefined" not in log and "Missing character" not in log and "multiply defined" not in log


def test_equal_results_stay_with_their_methods() -> None:
    """Only the teacher's score, seeds and seconds are said once for a pair, not a score or its interval."""
    tops: Tops = {("t", "s", m): [60.0, 61.0, 62.0] for m in ("kd", "crd")}
    tex = formats.latex(compared(tops))
    assert (
        r"\itshape t $>$ s; teacher's top-1 90.00; seeds 3" in tex and "top-1 last 6" not in tex and "CI [" not in tex
    )
    assert tex.count("[58.52, 63.48]") == 2
    tex = formats.latex(compared({line: values[:1] for line, values in tops.items()}))
    assert tex.count(r"& 60.00 & 60.00") == 2


# with a store ---------------------------------------------------------------------------------------------------------

CIFAR: dict[str, Any] = {
    "name": "cifar",
    "dataset": "cifar100",
    "recipe": "crd_240ep",
    "methods": ["student", "kd", "dkd", "rekd"],
    "pairs": [{"teacher": "resnet56", "student": "resnet20"}, {"teacher": "wrn_40_2", "student": "wrn_16_2"}],
    "seeds": 3,
}
DIGITS: dict[str, Any] = {
    "name": "small",
    "dataset": "digits",
    "recipe": "digits_quick",
    "methods": {"student": {}, "kd": {}, "kd_hot": {"use": "kd", "params": {"temperature": 9}}},
    "pairs": [{"teacher": t, "student": "digits_net_w4"} for t in ("digits_net_w8", "digits_net_w16")],
    "seeds": 3,
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield


def finish(sweep: dict[str, Any], *sets: str) -> Planned:
    """Write the sweep's file, a made-up record for each of its runs, and its tables."""
    Path("sweep.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    planned = plan_sweep(Path("sweep.yaml"), Path("results"), sets=sets)
    for run in planned.plan.runs.values():
        top1 = 60.0 + 5 * len(run.science.method.use) % 7 + math.sin(7 * run.science.seed + len(run.label)) / 3
        facts = {"teacher_top1": 72.34, "teacher_top5": 91.0, "last_top5": top1 + 20, "train_size": 50_000}
        science = run.science.text
        records.write_record(
            planned.store, row(run.run_id, top1, 99.0, science=science, evaluated_size=10_000, **facts)
        )
    contents = Contents.of(planned.name, planned.plan)
    table_folder.write_tables(contents, planned.store, planned.store.table_folder(planned.name))
    return planned


def cells(name: str) -> list[dict[str, str]]:
    with Path(f"results/tables/{name}/paper.csv").open(newline="") as f:
        return list(csv.DictReader(f))


@pytest.mark.parametrize("form", FORMATS)
def test_report_prints_what_was_published(home: None, form: str) -> None:
    finish(DIGITS)
    result = run_command("report", "sweep.yaml", "--paper", "--format", form)
    assert (result.code, result.err) == (0, "")
    assert result.out == Path(f"results/tables/small/paper.{form}").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("sweep", "sets"),
    [
        (DIGITS, ()),
        (DIGITS, ("recipe.epochs=3", "seeds=[5, 1]", "methods.kd.params.temperature=2")),
        ({**DIGITS, "teachers": {"recipe": {"base": "digits_quick", "epochs": 2}, "seed": 7}}, ()),
        ({**DIGITS, "teachers": {"recipe": "digits_quick"}, "recipe": {"base": "digits_quick", "lr": 0.01}}, ()),
        ({**DIGITS, "pairs": [{"teacher": "digits_net_w16", "student": f"digits_net_w{w}"} for w in (4, 8)]}, ()),
        ({**DIGITS, "pairs": [{**DIGITS["pairs"][0], "teacher_weights": {"file": "w.pth", "sha256": "0" * 64}}]}, ()),
    ],
    ids=["plain", "set", "teachers", "recipe", "students", "weights"],
)
def test_each_command_plans_the_runs_of_its_cell(home: None, sweep: dict[str, Any], sets: tuple[str, ...]) -> None:
    planned = finish(sweep, *sets)
    teachers = {(c.teacher, c.student): c.teacher_run for c in planned.plan.cells}
    printed_cells = cells(planned.name)
    assert len(printed_cells) == len(sweep["pairs"]) * 4
    for cell in printed_cells:
        program, m, module, *args = shlex.split(cell["command"])
        assert (program, m, module) == ("python", "-m", "harness.sweep")
        result = run_command("sweep", *args, "--plan", "--json", "--results", "elsewhere")
        assert result.code == 0, result
        expected = set(cell["run_ids"].split())
        assert expected and expected <= set(planned.plan.runs)
        if cell["method"] not in ("teacher", "student"):
            expected |= {teachers[cell["teacher"], cell["student"]]} - {None}
        assert set(json.loads(result.out)["run_ids"]) == expected, cell["command"]
    for cell, label in zip(printed_cells[:: len(sweep["pairs"])], ("teacher", *sweep["methods"]), strict=True):
        assert cell["method"] == label


def test_commands_of_added_seeds_plan_them_in_a_new_store(home: None) -> None:
    planned = finish(DIGITS)
    first = planned.plan.cells[0]
    more = plan_sweep(Path("sweep.yaml"), Path("results"), sets=["seeds=[0, 1, 2, 3]"]).plan
    added = next(c for c in more.cells if (c.method, c.seed, c.teacher) == (first.method, 3, first.teacher))
    contents = Contents.of("small", planned.plan)
    contents = replace(contents, cells=(*contents.cells, added))
    table_folder.write_tables(contents, planned.store, planned.store.table_folder("small"))
    (cell,) = (c for c in cells("small") if (c["method"], c["teacher"]) == (first.method, first.teacher))
    assert cell["run_ids"].split()[-1] == added.run_id and cell["missing"] == "1"
    result = run_command("sweep", *shlex.split(cell["command"])[3:], "--plan", "--json", "--results", "elsewhere")
    assert set(json.loads(result.out)["run_ids"]) == set(cell["run_ids"].split())


def test_published_numbers_are_next_to_ours_with_their_protocol(home: None) -> None:
    finish(CIFAR)
    cell_by_line = {(c["method"], c["student"]): c for c in cells("cifar")}
    kd, dkd = cell_by_line["kd", "resnet20"], cell_by_line["dkd", "resnet20"]
    assert (kd["published"], kd["protocol"], kd["epoch"], kd["epochs"]) == ("70.66", "crd_last_240ep", "last", "240")
    assert kd["verdict"] == "not reproduced" and float(kd["difference"]) == float(kd["mean"]) - 70.66
    assert (dkd["published"], dkd["protocol"], dkd["verdict"]) == ("71.97", "mdistiller_best_240ep", "not comparable")
    assert dkd["difference"] == "", "theirs is the best epoch's"
    assert cell_by_line["rekd", "resnet20"]["published"] == "", "published nowhere"
    assert cell_by_line["teacher", "wrn_16_2"]["published"] == "75.61"
    for form in ("md", "tex", "html"):
        text = Path(f"results/tables/cifar/paper.{form}").read_text().replace(r"$\neq$", "≠").replace("&nbsp;", " ")
        assert "70.66 [1] ≠" in text and "71.97 [2]" in text and "71.97 [2] ≠" not in text
        assert "[1] CRD (RepDistiller README.md @b84f547): last epoch, 240 epochs" in text
        assert "[2] DKD/DOT (mdistiller README.md @a08d46f): best test epoch, 240 epochs" in text
    assert r"\textcolor{gray}{\scriptsize 71.97 [2]}" in Path("results/tables/cifar/paper.tex").read_text()
    assert '<span class="published">71.97 [2]</span>' in Path("results/tables/cifar/paper.html").read_text()


def test_imagenet_has_top1_and_top5(home: None, monkeypatch: pytest.MonkeyPatch) -> None:
    info = datasets.prepared_dataset("imagenet", "0" * 16, 1000, 1_281_167, 50_000, 732)
    monkeypatch.setattr("harness.planning.locate.dataset_info", lambda dataset, root, store: info)
    weights = {"name": "torchvision:ResNet34_Weights.IMAGENET1K_V1", "sha256": "0" * 64}
    pair = {"teacher": "torchvision:resnet34", "student": "torchvision:resnet18", "teacher_weights": weights}
    methods = {"student": {}, "kd": {}, "lskd": {}}
    finish({**CIFAR, "dataset": "imagenet", "recipe": "crd_100ep", "pairs": [pair], "methods": methods})
    cell_by_metric = {(c["method"], c["metric"]): c for c in cells("cifar")}
    assert set(cell_by_metric) == {(m, k) for m in ("teacher", *methods) for k in ("top1", "top5")}
    assert cell_by_metric["teacher", "top5"]["mean"] == "91.0"
    kd = cell_by_metric["kd", "top1"], cell_by_metric["kd", "top5"]
    assert float(kd[1]["mean"]) == pytest.approx(float(kd[0]["mean"]) + 20)
    assert kd[0]["run_ids"] == kd[1]["run_ids"] and kd[0]["p_holm"] and not kd[1]["p_holm"]
    assert (
        cell_by_metric["lskd", "top1"]["published"] == "71.42"
        and cell_by_metric["lskd", "top5"]["published"] == "90.29"
    )
    assert kd[0]["published"] == "71.81" and kd[1]["published"] == "", "that source has no top-5 of it, others have"
    assert cell_by_metric["lskd", "top5"]["protocol"] == cell_by_metric["lskd", "top1"]["protocol"]
    assert [c["place"] for c in kd] == ["best", "best"] or [c["place"] for c in kd] == ["second", "second"]
    head = Path("results/tables/cifar/paper.md").read_text().splitlines()[0]
    assert "torchvision:resnet34 > torchvision:resnet18, top-5" in head
    tex = Path("results/tables/cifar/paper.tex").read_text()
    assert r"\multicolumn{4}{c}{torchvision:resnet34}" in tex and r"\multicolumn{2}{c}{top-5}" in tex
    assert "recipe crd_100ep." in tex.replace(r"\_", "_")


def test_teachers_of_several_sizes_are_listed_with_their_size(home: None) -> None:
    """This is the table behind the figure of the capacity gap."""
    finish(DIGITS)
    for form in ("md", "html", "tex"):
        text = Path(f"results/tables/small/paper.{form}").read_text()
        assert "teacher's parameters" in text.replace("&#x27;", "'") and "0.02 M" in text
    finish({**DIGITS, "pairs": DIGITS["pairs"][:1]})
    assert "teacher's parameters" not in Path("results/tables/small/paper.md").read_text()


def test_columns_are_chosen_by_their_names(home: None) -> None:
    finish(DIGITS)
    chosen = ("--columns", "seeds,top-1 best", "--columns", "top-1 last", "--format")
    md, csv_, tex, html_ = (
        run_command("report", "sweep.yaml", *chosen, form).out for form in ("md", "csv", "tex", "html")
    )
    head = [cell.strip() for cell in md.splitlines()[0].strip("|").split("|")]
    assert head == ["teacher > student", "method", "seeds", "top-1 best", "top-1 last"]
    fields = [f"{name}_top1_{part}" for name in ("best", "last") for part in ("mean", "std", "n")]
    named = ["sweep", "dataset", "teacher", "student", "method"]
    assert csv_.splitlines()[0].split(",") == [*named, *fields, "missing", "diverged"]
    assert r"method & top-1 best & top-1 last \\" in tex and "seeds 3}" in tex
    assert html_.count("<th>") == 5
    explained = ("95 % CI", "Paired t-test", "Seeds to tell", "'vs'")
    assert not [text for text in explained for form in (md, html_, tex.replace("\\%", "%")) if text in form]
    differences = run_command("report", "sweep.yaml", "--columns", "vs student").out
    assert [text for text in explained if text in differences] == ["Paired t-test", "'vs'"]


def test_an_unknown_column_is_refused(home: None) -> None:
    finish(DIGITS)
    error = run_command("report", "sweep.yaml", "--columns", "top1 last").error
    assert error.startswith("--columns: unknown column 'top1 last'; did you mean 'top-1 last'? Valid: ")
    assert "without what writes files" in run_command("report", "sweep.yaml", "--columns", "seeds", "--out", "t").error
    assert not Path("t").exists()
    assert "--columns" in run_command("report", "sweep.yaml", "--columns", "seeds", "--paper").error
    fidelity = run_command("report", "sweep.yaml", "--fidelity", "--columns", "KL, T = 1")
    assert fidelity.code == 0 and fidelity.out.startswith("| teacher > student")

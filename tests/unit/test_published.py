"""Published numbers: the build script's input and mapping, the committed files, the table next to a sweep's own."""

import csv
import html.parser
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.published import build, names
from benchmarks.published.protocols import SOURCES, Exclusion, Rule
from harness.errors import UserError
from harness.planning.plan import plan_sweep
from harness.reporting import comparison
from harness.reporting.published import numbers as published_numbers
from harness.reporting.published import table as published_table
from harness.reporting.published.table import PublishedTable
from harness.reporting.tables import formats, table_folder
from harness.reporting.tables import text as tables_text
from harness.spec import methods as method_sources
from harness.spec.lines import Line
from harness.spec.schema import Recipe
from harness.spec.tasks import resolve_model
from harness.store import records
from harness.store.store import Store
from tests.support.cli import REPO, run_command
from tests.support.comparisons import row
from tests.support.latex import tex_lines
from tests.support.published_numbers import CRD, MDISTILLER, built, committed, number

COLLECTION = REPO.parent / "shared" / "published" / "published.csv"
FILES = ("cifar100.csv", "imagenet.csv", "coco.csv", "protocols.csv", "excluded.csv")

# the build -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not COLLECTION.exists(), reason=f"no {COLLECTION}")
def test_the_committed_files_are_what_the_script_makes_of_the_collection(tmp_path: Path) -> None:
    texts = build.build_files(build.read_collection(COLLECTION))
    assert sorted(texts) == sorted(FILES)
    for name, text in texts.items():
        assert (published_numbers.FOLDER / name).read_bytes() == text.encode(), (
            f"{name}: run benchmarks.published.build again"
        )


def test_every_row_of_the_collection_is_accounted_for() -> None:
    counts = {name: len(committed(name)) for name in FILES}
    rows = sum(counts[name] for name in ("cifar100.csv", "imagenet.csv", "coco.csv", "excluded.csv"))
    assert rows == 1937 + 117 + 13
    assert all(r["reason"] for r in committed("excluded.csv"))
    assert Counter(r["source"].split(" ")[0] for r in committed("excluded.csv")) == {
        "DKD/DOT": 13, "SSKD": 11, "RLTF": 11, "SDD": 5,
    }  # fmt: skip


def test_every_number_has_a_protocol_and_no_protocol_mixes_metrics_epochs_or_recipes() -> None:
    protocols = committed("protocols.csv")
    assert len({(p["dataset"], p["protocol"]) for p in protocols}) == len(protocols)
    by_id = {(p["dataset"], p["protocol"]): p for p in protocols}
    for name in ("cifar100", "imagenet", "coco"):
        for r in committed(f"{name}.csv"):
            protocol = by_id[(name, r["protocol"])]
            assert protocol["epoch"] in ("last", "best", "unknown")
            assert protocol["origin"] in ("own", "quoted", "unstated", "secondary")
    recipes = {p.stem for p in (REPO / "benchmarks" / "recipes").glob("*.yaml")}
    assert {p["recipe"] for p in protocols} == {"", "crd_240ep"} <= recipes | {""}
    assert by_id[("cifar100", "crd_last_240ep")]["epoch"] == "last"
    assert by_id[("cifar100", "mdistiller_best_240ep")]["epoch"] == "best"
    assert by_id[("cifar100", "lskd_best_240ep")]["epoch"] == "best"


def test_our_names_exist() -> None:
    for name in ("cifar100", "imagenet", "coco"):
        for model in {r[k] for r in committed(f"{name}.csv") for k in ("teacher", "student")} - {"", names.NO_TEACHER}:
            assert resolve_model(model) == model
    for method, settings in {ours for ours in names.METHODS.values() if ours[0] not in ("", names.TEACHER)}:
        hyper = method_sources.describe_method(method).hyper
        for setting in settings.split():
            key, value = setting.split("=")
            if key in hyper:
                assert str(hyper[key].check(yaml.safe_load(value))) == value
            else:
                assert getattr(Recipe.model_validate({"epochs": 1, "lr": 1, key: value}), key) == value


def test_no_method_of_ours_is_among_those_that_we_do_not_have() -> None:
    """When a method joins, its printed names are mapped to it and the files built again."""
    not_ours = [printed for printed, (ours, _) in names.METHODS.items() if not ours]
    ours = {name.replace("_", "") for name in method_sources.builtin_names()}
    ours_after_all = [n for n in not_ours if n.replace("-", "").lower() in ours]
    assert not ours_after_all, "map these in benchmarks/published/names.py"


def test_a_number_keeps_its_printed_names_next_to_ours() -> None:
    rows = built(
        number(method="FitNet", value="69.21", std="0.20"),
        number(method="KD+LSKD", metric="top1", source="LSKD (logit-standardization-KD README.md @f6e5aa5)"),
        number(method="CRD+KD"),
        number(student="MobileNetV2", teacher="vgg13"),
        number(method="teacher", value="72.34", epochs=""),
    )["cifar100.csv"]
    fitnets, lskd, crd_kd, mobile, teacher = rows
    assert (fitnets["method"], fitnets["printed_method"], fitnets["std"]) == ("fitnets", "FitNet", "0.20")
    assert (fitnets["protocol"], fitnets["teacher_value"]) == ("crd_last_240ep", "72.34")
    assert (lskd["method"], lskd["settings"], lskd["protocol"]) == ("lskd", "base=kd", "lskd_best_240ep")
    assert (crd_kd["method"], crd_kd["printed_method"]) == ("", "CRD+KD")
    assert (mobile["recipe_change"], fitnets["recipe_change"]) == ("lr=0.01", "")
    assert teacher["protocol"] == "crd_last_teachers"


def test_a_printed_method_may_be_ours_with_another_recipe() -> None:
    dot, small = built(
        number(method="KD+DOT", source=MDISTILLER), number(method="KD+DOT", source=MDISTILLER, student="ShuffleV2")
    )["cifar100.csv"]
    assert (dot["method"], dot["settings"], dot["recipe_change"]) == ("kd", "optimizer=dot", "optimizer=dot")
    assert small["recipe_change"] == "lr=0.01 optimizer=dot"


def test_numbers_of_mlkd_have_the_note_on_their_epochs() -> None:
    rows = [r for r in committed("cifar100.csv") if r["printed_method"] in ("MLKD", "MLKD+LSKD")]
    assert len(rows) > 60 and all("2024-09-23" in r["note"] and "5ee473f" in r["note"] for r in rows)
    assert {(r["method"], r["settings"]) for r in rows} == {("mlkd", "strong_view=True"), ("lskd", "base=mlkd")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "CRD (RepDistiller README.md @0000000)"}, f"did you mean '{CRD}'"),
        ({"method": "FitNets"}, "unknown method 'FitNets'; did you mean 'FitNet'"),
        ({"student": "resnet-20"}, "unknown student 'resnet-20'; did you mean 'resnet20'"),
        ({"teacher": "ResNet34"}, "unknown teacher 'ResNet34'"),
        ({"dataset": "CIFAR100"}, "unknown dataset 'CIFAR100'; did you mean 'CIFAR-100'"),
        ({"metric": "top-1"}, "unknown metric 'top-1'; did you mean 'top1'"),
        ({"metric": "top1_best"}, "top1_best of CRD"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(change: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=".*") as e:
        build.build_files([number(**change)])
    assert message in str(e.value)


def test_a_row_that_stands_twice_is_refused() -> None:
    with pytest.raises(UserError, match="duplicated: resnet56 > resnet20, KD"):
        build.build_files([number(), number()])


def test_unlike_epochs_are_unlike_protocols() -> None:
    rows = built(number(), number(epochs="480"), number(epochs=""))["cifar100.csv"]
    assert [r["protocol"] for r in rows] == ["crd_last_240ep", "crd_last_480ep", "crd_last"]


def test_two_rules_of_one_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, MDISTILLER, (Rule("crd_last", "another", "best"),))
    with pytest.raises(UserError, match="protocol crd_last_240ep"):
        build.build_files([number(), number(source=MDISTILLER)])


def test_repeated_numbers_are_left_out_only_when_they_repeat() -> None:
    tables = built(number(), number(source=MDISTILLER))
    assert len(tables["cifar100.csv"]) == 1
    assert "repeats RepDistiller" in tables["excluded.csv"][0]["reason"]
    with pytest.raises(UserError, match="70.67 does not repeat crd_last, which has 70.66"):
        build.build_files([number(), number(source=MDISTILLER, value="70.67")])


def test_every_exclusion_and_rule_meets_rows() -> None:
    """A rule that matches no row is a mistake."""
    protocols = {(p["source"], p["protocol"]) for p in committed("protocols.csv")}
    reasons = {(r["source"], r["reason"]) for r in committed("excluded.csv")}
    for source, rules in SOURCES.items():
        for rule in rules:
            if isinstance(rule, Exclusion):
                assert (source, rule.reason) in reasons
            else:
                assert any(s == source and p.startswith(rule.id) for s, p in protocols), rule


def test_tables_read_only_top1() -> None:
    numbers = published_numbers.published_numbers("imagenet")
    assert numbers
    kd = numbers.numbers["top1"][("torchvision:resnet34", "torchvision:resnet18", "kd")]
    assert len(kd) > 5 and all(69 < float(n.value) < 75 for n in kd), "no top-5 and no error rate"


def test_methods_with_another_term_added_are_not_ours() -> None:
    (one,) = built(number(source="SimKD (SimKD README.md)", method="AT"))["cifar100.csv"]
    assert (one["method"], one["printed_method"]) == ("", "AT")
    for r in committed("cifar100.csv"):
        if r["protocol"].startswith("simkd_with_kl"):
            assert r["method"] == "" and r["printed_method"] not in ("KD", "student")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "expected the columns benchmark, dataset"),
        (",".join(build.COLUMNS) + "\n", "has 0 rows, expected 1937"),
        (",".join(build.COLUMNS) + "\na,b\n", "in every row"),
        (",".join(build.COLUMNS) + "\nx,x,x,x,x,x,nan,,,,\n", "published.csv:2: value: expected a number"),
    ],
)
def test_a_wrong_collection_is_one_message(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "published.csv"
    path.write_text(text)
    with pytest.raises(UserError) as e:
        build.read_collection(path)
    assert message in str(e.value)
    with pytest.raises(UserError, match="No such file"):
        build.read_collection(tmp_path / "none.csv")


# the table -----------------------------------------------------------------------------------------------------------

SWEEP: dict[str, Any] = {
    "name": "real",
    "dataset": "cifar100",
    "recipe": "crd_240ep",
    "methods": ["student", "kd", "dkd", "rekd"],
    "pairs": [{"teacher": "resnet56", "student": "resnet20"}],
    "seeds": 2,
}
FIGURES = {"student": 69.5, "kd": 71.0, "dkd": 72.0, "rekd": 73.0}


@pytest.fixture(autouse=True)
def work_in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield


def publish_sweep(teacher_top1: float | None = 72.34, **changes: Any) -> comparison.Comparison:
    """Write a CIFAR-100 sweep with made-up records and its table."""
    shutil.rmtree("results", ignore_errors=True)
    Path("real.yaml").write_text(yaml.safe_dump({**SWEEP, **changes}, sort_keys=False))
    planned = plan_sweep(Path("real.yaml"), Path("results"))
    method_of = {c.run_id: (c.method, c.seed) for c in planned.plan.cells}
    for run in planned.plan.runs.values():
        method, seed = method_of.get(run.run_id, ("", 0))
        last = FIGURES.get(method, 70.0) + seed
        science = run.science.text
        facts = {"teacher_top1": teacher_top1, "train_size": 50_000, "evaluated_size": 10_000}
        records.write_record(planned.store, row(run.run_id, last, 99.0, science=science, **facts))
    contents = comparison.Contents.of(planned.name, planned.plan)
    return table_folder.write_tables(contents, planned.store, planned.store.table_folder(planned.name))


def table(**changes: Any) -> PublishedTable:
    comparison = table_folder.published_for(publish_sweep(**changes))
    assert comparison is not None
    return comparison


def column(published: PublishedTable, protocol: str) -> published_table.ProtocolColumn:
    return next(c for c in published.columns if c.protocol.id == protocol)


def line(method: str) -> Line:
    return Line("resnet56", "resnet20", method)


def markdown_columns(text: str) -> dict[str, tuple[str, ...]]:
    lines = [line for line in text.partition(tables_text.PUBLISHED)[2].splitlines() if line.startswith("| ")]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    return dict(zip(cells[0], zip(*cells[1:], strict=True), strict=True))


def test_equal_protocols_are_compared_and_unlike_ones_are_not() -> None:
    columns = markdown_columns(table_folder.table_text(publish_sweep(), "table.md"))
    assert columns["method"] == ("student", "kd", "dkd"), "rekd is published nowhere"
    assert columns["ours, last [0]"] == ("70.00 ± 0.71 (2)", "71.50 ± 0.71 (2)", "72.50 ± 0.71 (2)")
    assert columns["CRD (RepDistiller), last [1]"] == ("69.06 (+0.94)", "70.66 (+0.84)", "")
    assert columns["mdistiller, best [2]"] == ("", "", "71.97"), "the best epoch's: no difference to our last"


def test_a_column_has_and_names_one_protocol() -> None:
    published = table()
    for c in published.columns:
        assert {n.protocol for cell in c.cells.values() for n in cell.numbers} == {c.protocol.id}
        assert c.protocol.origin == "own"
        assert c.remark.startswith(f"{c.protocol.source}: ")
    crd, mdistiller = (column(published, p).remark for p in ("crd_last_240ep", "mdistiller_best_240ep"))
    assert "last epoch, 240 epochs, recipe crd_240ep" in crd and "Comparable with ours" in crd
    assert "the same teacher by its accuracy (resnet56 72.34 %)" in crd
    assert "best test epoch" in mdistiller
    assert "Not comparable with ours: ours is the last epoch's, theirs the best test epoch's" in mdistiller
    assert "more published numbers for these pairs and methods" in published.rest


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"recipe": {"base": "crd_240ep", "epochs": 239}}, "ours trained for 239 epochs, theirs for 240"),
        ({"recipe": {"base": "crd_240ep", "lr": 0.1}}, "ours has lr 0.1, theirs 0.05"),
        ({"recipe": {"base": "crd_240ep", "precision": "bf16"}}, "ours has precision bf16, theirs float32"),
        ({"recipe": {"base": "crd_240ep", "nesterov": True}}, "ours has nesterov true, theirs false"),
        (
            {"dataset": {"name": "cifar100", "train_subset": 5000}},
            "ours trained on 5,000 of the 50,000 training images",
        ),
        (
            {"dataset": {"name": "cifar100", "validation": 5000}},
            "ours trained on 45,000 of the 50,000 training images; ours evaluated on held-out training images",
        ),
    ],
)
def test_the_table_states_why_ours_is_not_comparable_without_a_difference(changes: dict[str, Any], reason: str) -> None:
    crd = column(table(**changes), "crd_last_240ep")
    assert f"Not comparable with ours: {reason}" in crd.remark
    assert [cell.difference for cell in crd.cells.values()] == [None, None]


def test_evaluating_more_seldom_is_the_same_recipe() -> None:
    crd = column(table(recipe={"base": "crd_240ep", "eval_every": 5}), "crd_last_240ep")
    assert "Comparable with ours" in crd.remark
    assert crd.cells[line("student")].difference is not None


def test_kd_by_dot_is_compared_with_kd_by_dot_only() -> None:
    pair = {"pairs": [{"teacher": "resnet32x4", "student": "resnet8x4"}]}
    columns = markdown_columns(table_folder.table_text(publish_sweep(**pair), "table.md"))
    assert "75.12" not in " ".join(columns["mdistiller, best [2]"])
    recipe = {"base": "crd_240ep", "optimizer": "dot"}
    methods = {"student": {"recipe": {"optimizer": "sgd"}}, "kd": None}
    published = table(**pair, recipe=recipe, methods=methods)
    (cell,) = column(published, "mdistiller_best_240ep").cells.values()
    assert [n.value for n in cell.numbers] == ["75.12"]


def test_a_different_teacher_is_stated() -> None:
    crd = column(table(teacher_top1=71.59), "crd_last_240ep")
    assert "except for another teacher (theirs / ours in %: resnet56 72.34 / 71.59)" in crd.remark
    crd = column(table(teacher_top1=72.44), "crd_last_240ep")
    assert "another teacher" not in crd.remark, "0.1 points apart is one teacher"


def test_verdicts_stand_where_the_teacher_agrees_too() -> None:
    publish_sweep()
    columns = markdown_columns(run_command("report", "real.yaml").out)
    assert columns["verdict [0]"] == ("[1] undecided", "[1] undecided", "not comparable"), "two seeds tell little"
    output = run_command("report", "real.yaml", "--margin", "10").out
    columns = markdown_columns(output)
    assert columns["verdict [0]"] == ("[1] reproduced", "[1] reproduced", "not comparable"), "dkd's is a best epoch's"
    assert "find our mean within 10 points of the published one" in output
    listed = json.loads(run_command("sweep", "real.yaml", "--json", "--margin", "10").out)["published"]
    assert {n["verdict"] for n in listed if n["protocol"] == "crd_last_240ep"} == {"reproduced"}
    assert {n["verdict"] for n in listed if n["protocol"] != "crd_last_240ep"} == {"not comparable"}
    publish_sweep(teacher_top1=71.59)
    columns = markdown_columns(run_command("report", "real.yaml", "--margin", "10").out)
    assert columns["verdict [0]"] == ("[1] reproduced", "not comparable", "not comparable"), (
        "the student has no teacher"
    )
    for got in csv.DictReader(io.StringIO(run_command("report", "real.yaml", "--format", "csv").out)):
        expected = {"student": "undecided", "kd": "not comparable"}.get(got["method"], "")
        assert got["verdict_crd_last_240ep"] == expected


def test_small_students_are_compared_at_their_own_learning_rate() -> None:
    pair = {"teacher": "vgg13", "student": "MobileNetV2"}
    crd = column(table(pairs=[pair], teacher_top1=74.64), "crd_last_240ep")
    assert "ours has lr 0.05, theirs 0.01" in crd.remark
    crd = column(table(pairs=[{**pair, "recipe": {"lr": 0.01}}], teacher_top1=74.64), "crd_last_240ep")
    assert "Comparable with ours" in crd.remark


def test_lines_of_different_recipes_are_distinguished() -> None:
    crd = column(table(methods={"student": None, "kd": {"recipe": {"lr": 0.1}}}), "crd_last_240ep")
    assert "resnet56 > resnet20 kd: not comparable with ours: ours has lr 0.1, theirs 0.05" in crd.remark
    assert "resnet56 > resnet20 student: comparable with ours" in crd.remark
    assert {k: cell.difference is not None for k, cell in crd.cells.items()} == {
        line("student"): True,
        line("kd"): False,
    }


def test_a_variant_under_another_name_has_no_published_number() -> None:
    published = table(methods={"kd": None, "kd_hot": {"use": "kd", "params": {"temperature": 20}}})
    assert [r.method for r in published.rows] == ["kd"]
    assert table_folder.published_for(publish_sweep(methods={"kd": {"use": "fitnets"}})) is None


def test_a_setting_that_makes_another_method_is_minded() -> None:
    def numbers(base: str) -> set[str]:
        published = table(methods={"lskd": {"params": {"base": base}}})
        return {n.value for c in published.columns for cell in c.cells.values() for n in cell.numbers}

    assert "71.43" in numbers("kd") and "72.32" not in numbers("kd")
    assert "72.32" in numbers("dkd") and "71.43" not in numbers("dkd")


def test_pairs_and_datasets_without_published_numbers_have_no_second_table() -> None:
    pair = {"teacher": "resnet14", "student": "resnet8"}
    comparison = publish_sweep(pairs=[pair])
    assert table_folder.published_for(comparison) is None
    for form in formats.FORMATS:
        assert tables_text.PUBLISHED not in table_folder.table_text(comparison, f"table.{form}")
    assert published_numbers.published_numbers("digits") is None


def test_a_run_without_a_record_has_no_line() -> None:
    comparison = publish_sweep()
    sciences = {k: v for k, v in comparison.sciences.items() if k[2] != "kd"}
    published = published_table.published_table(
        replace(comparison, sciences=sciences), published_numbers.published_numbers("cifar100")
    )
    assert published and [r.method for r in published.rows] == ["student", "dkd"]


class _Rows(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1] += data


def test_every_format_shows_the_same_published_numbers() -> None:
    comparison = publish_sweep()
    markdown, latex, page = (table_folder.table_text(comparison, f"table.{form}") for form in ("md", "tex", "html"))
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    expected = [[c.strip() for c in line[1:-1].split("|")] for line in lines]
    parser = _Rows()
    parser.feed(page.partition("<h2>")[2].partition("</table>")[0])
    assert parser.rows == expected[5:]
    texts = tex_lines(latex)
    rows = {(pair, method): {cell for cell in cells if cell} for pair, method, *cells in expected}
    assert rows.keys() - texts.keys() == {("teacher > student", "method")}
    assert not [rows[line] - texts[line] for line in texts if rows[line] - texts[line]]
    assert latex.count(r"\begin{table*}") == latex.count(r"\end{table*}") == 2
    published = table_folder.published_for(comparison)
    assert published
    for got in csv.DictReader(io.StringIO(table_folder.table_text(comparison, "table.csv"))):
        for c in published.columns:
            cell = c.cells.get(line(got["method"]))
            assert got[f"published_{c.protocol.id}"] == (cell.numbers[0].value if cell else "")
            difference = cell.difference if cell else None
            assert got[f"difference_{c.protocol.id}"] == ("" if difference is None else str(difference))


def test_untrusted_text_stays_text() -> None:
    published = table()
    protocol = replace(published.columns[0].protocol, label="<b>50 % & #1_</b>")
    hostile = replace(
        published, columns=(replace(published.columns[0], protocol=protocol, remark=r"<i>\input{x} 50% $</i>"),)
    )
    one = publish_sweep()
    page, tex = formats.html_text(one, hostile), formats.latex(one, hostile)
    assert "<b>" not in page and "<i>" not in page and "&lt;i&gt;" in page
    assert r"\input" not in tex and r"50 \%" in tex and r"\#1\_" in tex


def test_verify_rebuilds_the_second_table_too() -> None:
    publish_sweep()
    path = Path("results/tables/real/table.md")
    assert tables_text.PUBLISHED in path.read_text()
    assert run_command("verify").code == 0
    path.write_text(path.read_text().replace("69.06", "69.07"))
    assert run_command("verify").code == 1


def test_commands_print_and_list_it() -> None:
    comparison = publish_sweep()
    result = run_command("report", "real.yaml")
    assert (result.code, result.out) == (0, table_folder.table_text(comparison, "table.md"))
    result = run_command("sweep", "real.yaml", "--json")
    listed = json.loads(result.out)["published"]
    assert {(n["method"], n["protocol"], n["top1"]) for n in listed} >= {
        ("kd", "crd_last_240ep", 70.66),
        ("dkd", "mdistiller_best_240ep", 71.97),
    }
    kd = next(n for n in listed if (n["method"], n["protocol"]) == ("kd", "crd_last_240ep"))
    assert kd["epoch"] == "last" and kd["teacher_top1"] == 72.34 and abs(kd["difference"] - 0.84) < 1e-9


def test_tables_are_not_current_after_published_numbers_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = publish_sweep().contents
    store, folder = Store(Path("results")), Path("results/tables/real")
    assert table_folder.tables_are_current(contents, store, folder)
    Path("newer.csv").touch()
    monkeypatch.setattr(published_numbers, "published_file", lambda dataset: Path("newer.csv"))
    assert not table_folder.tables_are_current(contents, store, folder)


def test_a_recipe_with_other_epochs_is_called_so_without_their_number() -> None:
    recipe = dict(published_table._recipe("digits_quick"))
    assert published_table.recipe_name(recipe) == "digits_quick"
    assert published_table.recipe_name({**recipe, "epochs": 3}) == "digits_quick with other epochs"
    assert published_table.recipe_name({**recipe, "lr": 0.1}) == "digits_quick with lr 0.1"

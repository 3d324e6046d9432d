"""Commands about a finished store: report, verify and status, and tables that are rebuilt from its records."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from harness.errors import UserError
from harness.planning.plan import Planned, plan_sweep
from harness.reporting import comparison
from harness.reporting.comparison import Comparison, Contents
from harness.reporting.paper.notes import notes as paper_notes
from harness.reporting.tables import formats, table_folder
from harness.reporting.tables import text as tables_text
from harness.store import records
from harness.store.store import Store
from tests.support.cli import on_a_terminal, run_command
from tests.support.comparisons import SWEEP, row


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a sweep file and a store with all its records and tables."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("small.yaml").write_text(yaml.safe_dump(SWEEP))
        planned = plan()
        for i, run in enumerate(planned.plan.runs.values()):
            science = run.science.text
            records.write_record(planned.store, row(run.run_id, 60.0 + i, 61.0 + i, science=science, schema_version=1))
        table_folder.write_tables(
            Contents.of(planned.name, planned.plan), planned.store, planned.store.table_folder("small")
        )
    return folder


@pytest.fixture
def home(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter a copy of the finished sweep's folder."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan() -> Planned:
    return plan_sweep(Path("small.yaml"), Path("results"))


FILES = (*table_folder.TEXTS, "records.parquet", "contents.json")


def test_rebuilding_gives_the_same_bytes(home: Path) -> None:
    folder = Path("results/tables/small")
    first = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert set(first) == {*FILES, "digests.json"}
    table_folder.write_tables(Contents.read(folder), Store(Path("results")), Path("elsewhere"))
    assert {p.name: p.read_bytes() for p in Path("elsewhere").iterdir()} == first


def test_tables_show_the_name_of_a_prepared_dataset(home: Path) -> None:
    """A name is no part of a run, and where there is none, nothing is written of it."""
    contents = Contents.read(Path("results/tables/small"))
    assert "dataset_label" not in Path("results/tables/small/contents.json").read_text()
    planned = plan()
    planned.plan.dataset_label = "flowers"
    named = Contents.of(planned.name, planned.plan)
    assert named.run_ids() == contents.run_ids()
    table_folder.write_tables(named, planned.store, Path("named"))
    assert Contents.read(Path("named")) == named
    for name in table_folder.TEXTS:
        text, before = (Path(folder, name).read_text() for folder in ("named", "results/tables/small"))
        assert text != before and text == re.sub(r"digits(?![_\\])", "flowers", before), name


def test_the_order_in_which_runs_finish_does_not_matter(home: Path) -> None:
    first = Path("results/tables/small/records.parquet").read_bytes()
    planned = plan()
    hidden = Path("later")
    Path("results/records").rename(hidden)
    Path("results/records").mkdir()
    for path in sorted(hidden.iterdir(), reverse=True):
        path.rename(Path("results/records") / path.name)
        table_folder.write_tables(Contents.of(planned.name, planned.plan), planned.store, Path("results/tables/small"))
    assert Path("results/tables/small/records.parquet").read_bytes() == first


def test_verify_passes_an_untouched_store(home: Path) -> None:
    result = run_command("verify")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("checked ") and "10 files" in result.out


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("what", ["changed", "removed", "empty", "grown"])
def test_verify_finds_one_changed_byte_and_a_removed_file(home: Path, name: str, what: str) -> None:
    path = Path("results/tables/small") / name
    content = path.read_bytes()
    if what == "removed":
        path.unlink()
    else:
        middle = len(content) // 2
        changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"changed": changed, "empty": b"", "grown": content + b"\n"}[what])
    result = run_command("verify")
    assert result.code == 1, result
    assert "small" in result.out and result.err == ""


@pytest.mark.parametrize("name", table_folder.TEXTS)
def test_verify_names_the_file_and_the_first_line_that_differs(home: Path, name: str) -> None:
    path = Path("results/tables/small") / name
    lines = path.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if "fitnets" in line)
    changed = lines[at].replace("fitnets", "fitnots", 1)
    path.write_text("\n".join([*lines[:at], changed, *lines[at + 1 :]]) + "\n")
    result = run_command("verify")
    assert result.code == 1
    (line,) = (line for line in result.out.splitlines() if line.startswith("DIFFERENT"))
    assert line.startswith(f"DIFFERENT {path.resolve()}: line {at + 1}: ") and "fitnots" in line and "fitnets" in line


def test_verify_finds_a_file_that_was_added(home: Path) -> None:
    Path("results/tables/small/table.txt").write_text("made by hand")
    assert run_command("verify").code == 1


def test_verify_finds_a_changed_and_a_removed_record(home: Path) -> None:
    planned = plan()
    store, cell = planned.store, planned.plan.cells[0]
    path = store.record(cell.run_id)
    whole = path.read_bytes()
    path.unlink()
    science = planned.plan.runs[cell.run_id].science.text
    records.write_record(store, row(cell.run_id, 99.0, 99.0, science=science))
    result = run_command("verify")
    assert result.code == 1 and "table.md" in result.out
    path.write_bytes(whole[:100])
    result = run_command("verify")
    assert result.code == 1 and f"{cell.run_id}.parquet: not a readable record" in result.out
    path.unlink()
    assert run_command("verify").code == 1
    path.write_bytes(whole)
    assert run_command("verify").code == 0


def test_verify_without_a_table_is_wrong_input(home: Path) -> None:
    assert "no table to verify" in run_command("verify", "--tables", "nowhere").error


def test_a_damaged_record_is_named(home: Path) -> None:
    path = plan().store.record(plan().plan.cells[0].run_id)
    path.write_bytes(path.read_bytes()[:-20])
    error = run_command("report", "small.yaml").error
    assert f"{path}: not a readable record" in error and "restore it from a copy, or move it out" in error
    other = plan().store.record(plan().plan.cells[1].run_id)
    path.write_bytes(other.read_bytes())
    assert f"{path}: not a readable record (run_id: of another run)" in run_command("report", "small.yaml").error


def test_report_without_a_file_lists_every_sweep(home: Path) -> None:
    assert run_command("sweep", "small.yaml", "--only", "method=student,kd", "--json").code == 0
    result = run_command("report")
    assert result.code == 0
    assert result.out.count("| teacher > student") == 2
    titles = [line for line in result.out.splitlines() if line.startswith("## ")]
    assert titles[0] == "## small" and titles[1].startswith("## small-")
    assert result.out.count("| fitnets ") == 1


@pytest.mark.parametrize("form", list(formats.FORMATS))
def test_report_prints_what_was_published(home: Path, form: str) -> None:
    result = run_command("report", "small.yaml", "--format", form)
    assert (result.code, result.err) == (0, "")
    assert result.out == Path(f"results/tables/small/table.{form}").read_text(encoding="utf-8")


def test_report_out_writes_a_folder_per_sweep(home: Path) -> None:
    result = run_command("report", "--out", "paper")
    assert result.code == 0 and result.out == "paper/small\n"
    for name in FILES:
        assert (Path("paper/small") / name).read_bytes() == (Path("results/tables/small") / name).read_bytes()
    assert run_command("verify", "--tables", "paper").code == 0


def test_report_of_an_empty_store(home: Path) -> None:
    result = run_command("report", "small.yaml", "--results", "empty")
    assert result.code == 0 and result.out.count("Without a record: 9 of 9 runs.") == 1
    assert f"note: {home}/empty: no such store; the first sweep makes it" in result.err
    assert not Path("empty").exists()
    Path("empty").mkdir()
    assert "no table yet" in run_command("report", "--results", "empty").error


@pytest.mark.parametrize(
    "words",
    [
        ("report",),
        ("verify",),
        ("leaderboard",),
        ("compact",),
        ("export", "0", "--to", "onnx"),
        ("evaluate", "--run", "0"),
    ],
)
def test_a_misspelt_store_is_no_empty_one(home: Path, words: tuple[str, ...]) -> None:
    result = run_command(*words, "--results", "resluts")
    assert (result.code, result.out) == (2, "")
    assert result.error == "resluts: no such store; did you mean results?"
    for command in ("status", "report"):
        result = run_command(command, "small.yaml", "--results", "resluts")
        assert result.code == 0 and f"no such store; did you mean {home}/results?" in result.err


def test_what_verify_finds_wraps_at_words_on_a_terminal(home: Path) -> None:
    with on_a_terminal(60):
        shown = run_command("verify")
    first, second, *_ = shown.out.splitlines()
    assert shown.code == 0 and first.startswith("checked") and second.startswith("  ")


def test_chosen_columns_fit_a_terminal(home: Path) -> None:
    chosen = ("--columns", "seeds,top-1 last", "--format", "terminal")
    result = run_command("report", *chosen)
    assert result.code == 0 and result.err == ""
    title, _, table = result.out.partition("\n\n")
    assert title.startswith("small: ") and max(map(len, result.out.splitlines())) <= 80
    names, _, _, student, *_ = map(str.split, table.splitlines())
    assert names == ["method", "seeds", "top-1", "last"] and student[:2] == ["student", "3"] and "±" in student
    result = run_command("report", "--columns", "seads", "--format", "terminal")
    assert result.code == 2 and result.out == "" and "did you mean 'seeds'" in result.err


def test_a_damaged_description_is_named(home: Path) -> None:
    for text in ("", "[]", "{}", '{"cells": 5}', '{"cells": [], "epochs": 5, "name": "x"}'):
        Path("results/tables/small/contents.json").write_text(text)
        assert "contents.json: damaged: " in run_command("report").error
        with pytest.raises(UserError):
            Contents.read(Path("results/tables/small"))


def test_a_finished_sweep_prints_its_table_again_and_only_json_on_request(home: Path) -> None:
    result = run_command("sweep", "small.yaml")
    assert result.code == 0
    assert result.out.startswith(Path("results/tables/small/table.md").read_text())
    assert "records.parquet" in result.err and ".tex" in result.err
    result = run_command("sweep", "small.yaml", "--json")
    assert (result.code, result.err) == (0, "")
    document = json.loads(result.out)
    assert [r["method"] for r in document["rows"]] == SWEEP["methods"]
    assert document["rows"][0]["last"]["n"] == 3


def test_status_as_json_is_only_json(home: Path) -> None:
    store = plan().store
    run_id = plan().plan.cells[0].run_id
    store.record(run_id).unlink()
    store.write_failure(run_id, "code", "ValueError: no\nsuch thing", "details", "log")
    result = run_command("status", "small.yaml", "--json")
    assert (result.code, result.err) == (0, "")
    states = {r["run_id"]: r for r in json.loads(result.out)}
    assert states[run_id]["state"] == "failed" and "ValueError" in states[run_id]["cause"]
    result = run_command("status", "small.yaml", "--failures", "--json")
    assert json.loads(result.out)[0]["kind"] == "code" and result.err == ""
    assert "--json goes with" in run_command("status", "small.yaml", "--json", "--cancel").error
    store.failure_file(run_id).write_text('{"run_id": 5}')
    assert run_command("status", "small.yaml", "--failures").code == 0
    assert json.loads(run_command("status", "small.yaml", "--json").out)[0]["state"] in ("done", "failed")


def test_failures_are_grouped_by_cause(home: Path) -> None:
    """Causes are grouped by the line that raised, ignoring run ids, numbers and the code's folder."""
    store, runs = plan().store, sorted(plan().plan.runs)
    raised = 'Traceback:\n  File "/{}/methods/kd.py", line {}, in forward\n    x\nValueError: bad'
    for i, run_id in enumerate(runs):
        store.record(run_id).unlink(missing_ok=True)
        kind, cause, details = (
            ("disk", f"/runs/{run_id}: no space left on the disk", f"log {i}"),
            ("code", f"ValueError: bad {i}", raised.format(i, 7)),
            ("code", f"ValueError: bad {i}", raised.format(i, 8)),
        )[i % 3]
        store.write_failure(run_id, kind, cause, details, "log")
    assert len(runs) >= 6
    output = run_command("status", "small.yaml", "--failures").out
    assert output.startswith(f"{len(runs)} failed, 3 causes\n"), output
    assert all(output.count(run_id) >= 1 for run_id in runs)


def test_another_recipe_in_a_column_is_stated(home: Path) -> None:
    sweep = yaml.safe_load(Path("small.yaml").read_text())
    methods = sweep["methods"]
    entries = methods if isinstance(methods, dict) else {name: {} for name in methods}
    Path("small.yaml").write_text(yaml.safe_dump({**sweep, "methods": entries}))
    assert not any("another recipe" in note for note in next(tables_text.sections(comparison_of(plan()), None)).remarks)
    entries["kd"] = {**(entries["kd"] or {}), "recipe": {"lr": 0.5}}
    Path("small.yaml").write_text(yaml.safe_dump({**sweep, "methods": entries}))
    recipe_note = next(
        note for note in next(tables_text.sections(comparison_of(plan()), None)).remarks if "another recipe" in note
    )
    assert "kd: lr 0.5" in recipe_note and "student:" not in recipe_note


def test_the_readings_of_methods_are_stated_where_paper_and_code_differ(home: Path) -> None:
    assert not any("Readings" in note for note in next(tables_text.sections(comparison_of(plan()), None)).remarks), (
        "kd has one"
    )
    mlkd = {name: {"use": "mlkd", "params": {"reading": name}} for name in ("code", "paper")}
    student = {"recipe": {"optimizer": "sgd"}}
    methods = {"student": student, "kd": {}, "mlkd_code": mlkd["code"], "mlkd_paper": mlkd["paper"]}
    recipe = {"base": SWEEP["recipe"], "optimizer": "dot", "views": {"strong": {"crop_padding": 2}}}
    Path("small.yaml").write_text(yaml.safe_dump({**SWEEP, "methods": methods, "recipe": recipe}))
    planned = plan()
    for run in planned.plan.runs.values():
        if not planned.store.record(run.run_id).exists():
            records.write_record(planned.store, row(run.run_id, 60.0, 61.0, science=run.science.text))
    (note,) = (
        note for note in next(tables_text.sections(comparison_of(planned), None)).remarks if "code differ" in note
    )
    assert note.endswith("code differ: mlkd_code as in the code; mlkd_paper as in the paper.")
    usual = "Trained with optimizer dot and a further view 'strong' of each image"
    notes = next(tables_text.sections(comparison_of(planned), None)).remarks
    assert f"{usual}; lines with other recipes are named above." in notes, "most lines have it"
    assert {note, *(n for n in notes if n.startswith(usual))} <= {*paper_notes(comparison_of(planned), ["top1"], 1, [])}


def comparison_of(planned: Planned) -> Comparison:
    contents = Contents.of(planned.name, planned.plan)
    contents.write(Path("described"))
    return next(comparison.load_comparisons([Contents.read(Path("described"))], planned.store))


def test_tables_are_current_until_a_record_changes(home: Path) -> None:
    planned, folder = plan(), Path("results/tables/small")
    contents = Contents.of(planned.name, planned.plan)
    assert table_folder.tables_are_current(contents, planned.store, folder)
    assert not table_folder.tables_are_current(replace(contents, note="another"), planned.store, folder)
    some = planned.store.record(contents.cells[0].run_id)
    content = some.read_bytes()
    os.utime(some)
    assert table_folder.tables_are_current(contents, planned.store, folder), "only its time has changed"
    some.unlink()
    science = planned.plan.runs[some.stem].science.text
    records.write_record(planned.store, row(some.stem, 99.0, 99.0, science=science))
    os.utime(some, (1, 1))  # like a copy that keeps times, of a run that was deleted and trained again
    assert not table_folder.tables_are_current(contents, planned.store, folder)
    some.write_bytes(content)
    assert table_folder.tables_are_current(contents, planned.store, folder)
    (folder / "table.md").write_text("changed")
    assert not table_folder.tables_are_current(contents, planned.store, folder)
    table_folder.write_tables(contents, planned.store, folder)
    assert table_folder.tables_are_current(contents, planned.store, folder)
    some.unlink()
    assert not table_folder.tables_are_current(contents, planned.store, folder)


def test_a_key_that_one_recipe_leaves_unset_is_listed_as_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = {**SWEEP, "methods": {"student": {}, "kd": {}, "fitnets": {"recipe": {"compile": True}}}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(sweep))
    (change,) = Contents.of("small", plan().plan).recipe_changes
    assert str(change) == "digits_net_w8 > digits_net_w4, fitnets: compile True" and not change.unlike

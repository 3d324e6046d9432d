"""The tables, notes and figures of a tuning, from logs made by hand."""

import csv
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pyarrow.parquet as pq
import pytest
import yaml

from harness.errors import UserError
from harness.planning.plan import plan_sweep
from harness.reporting.comparison import Contents
from harness.reporting.figures.tuning import best_so_far
from harness.reporting.tables import table_folder
from harness.reporting.tables.terminal import tuning_lines
from harness.reporting.tables.text import sweep_notes
from harness.reporting.tuning import (
    FILES,
    read_tuning,
    tuned_methods,
    tuning_dict,
    tuning_notes,
    tuning_text,
    write_tuning,
)
from harness.store import checksums, files, records
from harness.store.store import Store
from harness.store.tuning_log import Trial, TuningLog
from tests.support.cli import run_command
from tests.support.comparisons import SWEEP, row

WEIGHT, TEMPERATURE = "weights.kd", "params.temperature"


def trial(method: str, number: int, value: float | None, **settings: Any) -> Trial:
    state: Any = "diverged" if value is None else "done"
    own = {key.replace("_", ".", 1): setting for key, setting in settings.items()}
    return Trial(method, number, number // 2, own, (f"{method}-{number}",), 20, 1000, value, state)


def log(*trials: Trial, untuned: tuple[str, ...] = ("student",), **search: Any) -> TuningLog:
    own = {method: {WEIGHT: values} for method, values in search.items()}
    return TuningLog("small", "top1", "tpe", (1000,), 144, trials, untuned, own)


KD = (
    trial("kd", 0, 80.0, weights_kd=0.9),
    trial("kd", 1, 84.5, weights_kd=2.34567),
    trial("kd", 2, None, weights_kd=100.0),
)
REKD = tuple(trial("rekd", i, 70.0 + i, weights_kd=float(i)) for i in range(3))


def line(text: str, name: str) -> list[str]:
    """Return the cells of a method's line of the first table."""
    found = next(line for line in text.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", found)[1:-1]]


def test_a_method_has_a_line_with_budget_winner_and_gain() -> None:
    text = tuning_text(log(*KD, *REKD))
    assert line(text, "kd") == ["kd", "weights.kd 2.346", "3", "3,000", "80.00", "84.50", "+4.50"]
    assert line(text, "student") == ["student", "not tuned", "0", "0", "", "", ""]
    assert "Rule of choice: the highest mean over pairs and seeds of the validation top-1 after the last epoch" in text
    assert "on 144 held-out training images" in text and "seed 1000" in text
    assert "kd: 1 diverged of 3 trials." in text and "Unequal" not in text
    assert re.search(r"^\| kd +\| weights.kd 100 +\| +2 \| +20 \| +\| diverged \|$", text, re.MULTILINE)
    assert re.search(r"^\| kd +\| weights.kd 2.346 +\| +1 \| +20 \| +84.50 \| +won \|$", text, re.MULTILINE)


def test_own_settings_that_win_are_named_so() -> None:
    text = tuning_text(log(trial("kd", 0, 80.0, weights_kd=0.9), trial("kd", 1, 80.0, weights_kd=2.0)))
    assert line(text, "kd")[1:] == ["its own: weights.kd 0.9", "2", "2,000", "80.00", "80.00", "+0.00"]


@pytest.mark.parametrize(
    ("searched", "value", "place"),
    [
        ({"log": [0.1, 10]}, 9.0, "at the upper end of"),
        ({"log": [0.1, 10]}, 7.0, ""),
        ({"log": [0.1, 10]}, 0.11, "at the lower end of"),
        ({"log": [0.1, 10]}, 0.0, "below"),
        ({"uniform": [0, 10]}, 9.0, ""),
        ({"uniform": [0, 10]}, 9.6, "at the upper end of"),
        ([1, 2, 4], 4, "at the upper end of"),
        ([1, 2, 4], 2, ""),
        ([1, 2, 4], 0.5, "below"),
        ([3], 3, ""),
        (["mean", "map"], "map", ""),
        ([False, True], True, ""),
    ],
)
def test_a_winner_at_the_edge_of_the_search_is_named(searched: Any, value: Any, place: str) -> None:
    (method,) = tuned_methods(log(trial("kd", 0, 80.0, weights_kd=value), kd=searched))
    shown = f"{value:g}" if isinstance(value, int | float) else value
    expected = f"weights.kd {shown} is {place} what was searched: better values may lie beyond it"
    assert method.remarks == ((expected,) if place else ())


def test_unequal_budgets_are_marked_everywhere() -> None:
    more = log(
        *KD, *REKD, trial("fitnets", 0, 81.0), trial("fitnets", 1, 82.0), *(replace(t, method="crd") for t in KD)
    )
    more = replace(more, trials=(*more.trials, *(trial("dkd", i, 70.0) for i in range(4))))
    text = tuning_text(more)
    assert [line(text, name)[3] for name in ("kd", "fitnets", "dkd")] == ["3,000", "2,000 (fewer)", "4,000 (more)"]
    unequal = "Unequal budgets of tuning: more images than most for dkd; fewer images than most for fitnets."
    assert unequal in text
    assert tuning_notes(more) == (
        "Settings chosen by validation top-1 on 144 held-out training images: kd, rekd, crd (each 3 trials, 3,000 "
        "images trained on); fitnets (2 trials, 2,000 images trained on); dkd (4 trials, 4,000 images trained on).",
        unequal,
        "Not tuned: student.",
    )
    assert [method["budget"] for method in tuning_dict(more)["methods"]] == ["equal", "equal", "fewer", "equal", "more"]


def test_a_method_without_a_finished_trial_keeps_its_own_settings() -> None:
    lost = log(*(replace(t, value=None, state="failed") for t in KD), *REKD)
    text = tuning_text(lost)
    assert line(text, "kd") == ["kd", "none: its own stay", "3", "3,000", "", "", ""]
    assert "kd: no trial was trained to the end, so its own settings stay." in text
    assert "nan" not in text.lower() and "None" not in text
    methods = json.loads(json.dumps(tuning_dict(lost), allow_nan=False))["methods"]
    assert [(m["winner"], m["gained"], m["settings"]) for m in methods] == [(None, None, None), (2, 2.0, {WEIGHT: 2.0})]
    assert tuning_notes(replace(lost, untuned=()))[1:] == ()


def test_a_trial_stopped_at_a_rung_does_not_win() -> None:
    stopped = replace(KD[1], state="stopped", epochs=5, value=99.0, images=250)
    text = tuning_text(log(KD[0], stopped))
    assert line(text, "kd")[1] == "its own: weights.kd 0.9"
    assert re.search(r"\| +1 \| +5 \| +99.00 \| +stopped \|$", text, re.MULTILINE)
    assert best_so_far((stopped, KD[0])) == ([1250], [80.0])


def test_names_are_escaped() -> None:
    text = tuning_text(log(trial("a|b<i>", 0, 80.0, params_tap="x|y"), untuned=("c|d",)))
    assert line(text, r"a\|b\<i>")[1] == r"its own: params.tap x\|y"
    assert line(text, r"c\|d")[1] == "not tuned"


def test_a_terminal_gets_the_methods_within_its_width_and_nothing_escaped() -> None:
    lines = [line.plain for line in tuning_lines(log(*KD, trial("a|b", 0, 70.0, params_tap="x|y")), Path("here"), 60)]
    assert max(map(len, lines)) <= 60 and "\\" not in "".join(lines)
    at = next(i for i, line in enumerate(lines) if line.startswith("kd "))
    assert lines[at].split() == ["kd", "3", "3,000", "(more)", "80.00", "84.50", "+4.50"]
    assert lines[at + 1] == "    weights.kd\u00a02.346"
    assert any(line.startswith("a|b ") for line in lines) and lines[-1] == "Every trial: here/tuning.md"


def test_files_have_a_line_per_trial(tmp_path: Path) -> None:
    write_tuning(log(*KD, trial("=x", 0, 70.0)), tmp_path)
    assert (tmp_path / "tuning.md").read_text() == tuning_text(log(*KD, trial("=x", 0, 70.0)))
    written = list(csv.DictReader((tmp_path / "tuning.csv").open()))
    assert [r["trial"] for r in written] == ["0", "1", "2", "0"] and written[3]["method"] == "'=x"
    assert written[1]["settings"] == '{"weights.kd": 2.34567}' and written[2]["validation_score"] == ""
    table = pq.read_table(tmp_path / "tuning.parquet").to_pylist()
    assert [r["won"] for r in table] == [False, True, False, True] and table[2]["validation_score"] is None
    assert table[0]["run_ids"] == "kd-0" and table[0]["metric"] == "top1" and table[0]["seeds"] == "1000"


def test_the_order_of_settings_does_not_matter(tmp_path: Path) -> None:
    settings = {"weights_kd": 2.0, "params_tau": 1}
    for name, order in (("one", sorted(settings)), ("two", settings)):
        write_tuning(log(trial("kd", 0, 80.0, **{key: settings[key] for key in order})), tmp_path / name)
    one, two = ([(tmp_path / folder / name).read_bytes() for name in FILES] for folder in ("one", "two"))
    assert one == two


def tuned_store() -> tuple[Store, Contents]:
    """Write a store with the final records of a sweep and the log of its tuning, and return it with its contents."""
    Path("small.yaml").write_text(yaml.safe_dump(SWEEP))
    planned = plan_sweep(Path("small.yaml"), Path("results"))
    for i, (run_id, run) in enumerate(planned.plan.runs.items()):
        records.write_record(planned.store, row(run_id, 60.0 + i, 61.0 + i, science=run.science.text))
    tried = log(*KD, kd={"log": (0.1, 100.0)}, untuned=("student", "fitnets"))
    path = planned.store.tuning("small")
    path.parent.mkdir()
    files.replace_json(path, checksums.seal_value(asdict(tried)))
    assert read_tuning(planned.store, "small") == tried
    return planned.store, replace(Contents.of("small", planned.plan), tuning=tuning_notes(tried))


def test_verify_rebuilds_a_tunings_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store, contents = tuned_store()
    folder = store.table_folder("small")
    write_tuning(read_tuning(store, "small"), folder)
    assert run_command("verify").code == 0, "before the final runs"
    table_folder.write_tables(contents, store, folder)
    assert table_folder.tables_are_current(contents, store, folder)
    note = (
        "Settings chosen by validation top-1 on 144 held-out training images: kd (3 trials, 3,000 images trained on)."
    )
    for name in ("table.md", "table.html", "paper.md"):
        assert note in (folder / name).read_text()
    assert note in run_command("report").out
    assert note in run_command("report", "small.yaml").out, "its runs are those of the table"
    assert note not in run_command("report", "small.yaml", "--set", "seeds=2").out

    text = (folder / "tuning.csv").read_text()
    (folder / "tuning.csv").write_text(text.replace("84.5", "94.5"))
    changed = run_command("verify")
    assert changed.code == 1 and f"DIFFERENT {folder}/tuning.csv: line 3" in changed.out
    assert not table_folder.tables_are_current(contents, store, folder)
    (folder / "tuning.csv").write_text(text)
    drawn = run_command("report", "--figures", folder.parent).out.split()
    assert {str(folder / "tuning.svg"), str(folder / "tuning_kd.svg")} <= set(drawn)
    assert run_command("verify").code == 0
    store.tuning("small").unlink()
    missing = run_command("verify")
    assert missing.code == 1 and "DAMAGED" in missing.out and "small.json: missing; run harness.tune" in missing.out


def test_a_bundle_has_the_tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store, contents = tuned_store()
    table_folder.write_tables(contents, store, store.table_folder("small"))
    assert run_command("report", "small.yaml", "--bundle", "small.zip").code == 0
    with ZipFile("small.zip") as bundle:
        bundle.extractall("small")
    assert {f"tables/small/{name}" for name in FILES} | {"tuning/small.json"} <= set(bundle.namelist())
    assert "tuning/            every trial" in Path("small/README.txt").read_text()
    assert run_command("verify", "--results", "small").code == 0


def test_tables_without_a_tuning_have_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(yaml.safe_dump(SWEEP))
    contents = Contents.of("small", plan_sweep(Path("small.yaml"), Path("results")).plan)
    contents.write(tmp_path)
    assert "tuning" not in (tmp_path / "contents.json").read_text()
    tuned = replace(contents, tuning=("Tuned.\n\nTwice.",))
    tuned.write(tmp_path)
    assert Contents.read(tmp_path) == tuned and "Tuning: Tuned. Twice." in sweep_notes(tuned)


def test_a_damaged_log_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store, _ = tuned_store()
    path = store.tuning("small")
    path.write_text(path.read_text().replace("84.5", "94.5"))
    with pytest.raises(UserError, match=r"small.json: damaged: its content does not match its checksum"):
        read_tuning(store, "small")
    value = checksums.split_value(json.loads(path.read_text()))[0]
    files.replace_json(path, {**value, "search": {"kd": {WEIGHT: {"log": [0.1]}}}})
    with pytest.raises(UserError, match=r"small.json: damaged: search.kd"):
        read_tuning(store, "small")

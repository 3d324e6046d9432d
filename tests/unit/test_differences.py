"""Why runs are to do again, and `harness.diff` of sweep files, runs and stores."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.planning import nearest_records
from harness.planning.plan import Planned
from harness.planning.sweep_differences import plan_differences
from harness.spec.science import Given, Science, Several, Trained
from harness.spec.science_differences import ScienceDifferences
from harness.store import records
from harness.store.store import Store
from tests.support.cli import REPO, run_command
from tests.support.leaderboard_records import put_compacted
from tests.support.planned_costs import SWEEP, plan, record
from tests.support.sciences import make_science

KD = "digits_net_w8 > digits_net_w4 / kd"


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """The small sweep with two seeds, whose runs have records."""
    monkeypatch.chdir(tmp_path)
    planned = plan(tmp_path, seeds=2)
    for job, run_id in enumerate(planned.plan.runs):
        record(planned, run_id, own=3.0, job=job, versions='{"torch": "2.0"}')
    return planned


def reasons(*args: str) -> list[str]:
    lines = run_command("sweep", "small.yaml", "--plan", *args).out.splitlines()
    return [line.removeprefix("why again: ") for line in lines if line.startswith("why again: ")]


def write(file: str, **changes: Any) -> str:
    Path(file).write_text(yaml.safe_dump({**SWEEP, "seeds": 2, **changes}))
    return file


# Why again -----------------------------------------------------------------------------------------------------------


def test_a_plan_says_what_differs_from_the_records_that_nearly_match(trained: Planned) -> None:
    assert reasons("--set", "recipe.epochs=6") == [
        "3 runs have records that differ in recipe.epochs 2 -> 6",
        "2 runs have records that differ in recipe.epochs 2 -> 6, teacher.recipe.epochs 2 -> 6",
    ]
    hot = ("--set", "methods.kd.params.temperature=9", "--only", "seed=1")
    assert reasons(*hot) == ["1 run has a record that differs in method.params.temperature 4.0 -> 9.0"]
    keys = [{"key": "method.params.temperature", "record": 4.0, "planned": 9.0}]
    summary = json.loads(run_command("sweep", "small.yaml", "--plan", "--json", *hot).out)
    assert summary["differences"] == [{"runs": 1, "keys": keys}]
    several = [
        f"--set=recipe.{key}" for key in ("epochs=6", "lr=0.2", "momentum=0.5", "batch_size=32", "nesterov=true")
    ]
    assert reasons(*several)[0].endswith("recipe.lr 0.05 -> 0.2, recipe.momentum 0.9 -> 0.5 and 1 more key")


def test_a_plan_says_nothing_where_no_record_nearly_matches(trained: Planned) -> None:
    assert not reasons(), "all is done"
    assert not reasons("--set", "seeds=4"), "new seeds"
    assert not reasons("--set", "methods=[fitnets]"), "another method"
    assert not reasons("--set", "pairs.0.student=digits_net_w16", "--only", "method=kd"), "another student"
    assert not reasons("--results", "empty", "--set", "recipe.epochs=6")
    write("small.yaml", methods={"kd": None, "cold": {"use": "kd", "params": {"temperature": 1}}})
    assert not reasons(), "the records are those of another entry of the sweep"


def test_the_record_with_the_fewest_differences_counts(trained: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, temperature in enumerate((5.0, 6.0)):
        near = plan(trained.store.root.parent, seeds=2, methods={"kd": {"params": {"temperature": temperature}}})
        for run_id in near.plan.runs.keys() - trained.plan.runs.keys():
            science = near.plan.runs[run_id].science
            if science.seed == i:
                record(near, run_id, own=3.0, job=9)
    write("small.yaml", methods={"kd": {"weights": {"kd": 0.3}, "params": {"temperature": 6.0}}})
    weight = "method.weights.kd 0.9 -> 0.3"
    assert reasons() == [
        f"1 run has a record that differs in method.params.temperature 4.0 -> 6.0, {weight}",
        f"1 run has a record that differs in {weight}",
    ], "the record at 6.0 is of seed 1 only"
    monkeypatch.setattr(nearest_records, "SHOWN_GROUPS", 1)
    assert reasons()[1:] == ["and 1 more difference, of 1 run"]


def test_a_damaged_record_hides_reasons_but_not_the_plan(trained: Planned) -> None:
    trained.store.record(max(trained.plan.runs)).write_bytes(b"x")
    result = run_command("sweep", "small.yaml", "--plan", "--set", "recipe.epochs=6")
    assert result.code == 0 and "why again" not in result.out and "past runs cannot be used" in result.err


# Sciences ------------------------------------------------------------------------------------------------------------


def keys(first: Science, second: Science, **known: Science) -> list[str]:
    return list(map(str, ScienceDifferences(known.get).between(first, second).keys))


def test_versions_weights_and_teachers_of_a_teacher_are_keys() -> None:
    kd = make_science("s", "kd", teacher="t")
    assert keys(kd, kd.with_seed(3)) == ["seed 0 -> 3"]
    assert keys(kd, replace(kd, method=replace(kd.method, version=2))) == ["method.version 1 -> 2"]
    assert keys(kd, replace(kd, teacher=Given("t", "cd" * 32))) == ["teacher.sha256 abababababab... -> cdcdcdcdcdcd..."]
    long, short = make_science("t", epochs=9), make_science("t")
    by = [replace(kd, teacher=Trained("t", run)) for run in ("long", "short")]
    assert keys(*by, long=long, short=short) == ["teacher.recipe.epochs 9 -> 1"]
    assert keys(*by, long=long) == ["teacher.run long -> short"], "of the other nothing is known"
    of_two = keys(by[0], replace(kd, teacher=Trained("u", "u")), long=long, u=make_science("u", epochs=9))
    assert of_two == ["teacher.model t -> u"]
    taught = [replace(long, teacher=science.teacher) for science in by]
    of_assistants = [replace(kd, teacher=Trained("a", run)) for run in ("a1", "a2")]
    known = {"long": long, "short": short, "a1": taught[0], "a2": taught[1]}
    assert keys(*of_assistants, **known) == ["teacher.teacher.recipe.epochs 9 -> 1"]
    several = [replace(kd, teacher=Several((Given("u", "ef" * 32), science.teacher))) for science in by]  # type: ignore[arg-type]
    assert keys(*several, long=long, short=short) == ["teacher.1.recipe.epochs 9 -> 1"]
    other_data = [replace(science, dataset=replace(science.dataset, version="v2")) for science in (by[1], short)]
    version = keys(by[0], other_data[0], long=short, short=other_data[1])
    assert len(version) == 1 and version[0].startswith("dataset.version "), "said once, not for the teacher too"


# Sweep files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits_pairs", "early_stopped_teachers"])
def test_a_shipped_sweep_file_equals_itself(name: str) -> None:
    file = REPO / f"benchmarks/{name}.yaml"
    result = run_command("diff", file, file)
    assert result.code == 0 and "the same" in result.out.splitlines()[2], result


def test_spellings_of_one_sweep_are_the_same_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    other = write("b.yaml", name="other", seeds=[1, 0], methods={"cold": {"use": "kd", "params": {}}, "student": None})
    result = run_command("diff", write("a.yaml"), other)
    assert (result.code, result.out) == (0, "A a.yaml: 5 runs\nB b.yaml: 5 runs\nthe same 5 runs\n")


@pytest.mark.parametrize(
    ("changes", "key", "values", "runs"),
    [
        ({"recipe": {"base": "digits_quick", "epochs": 2, "weight_decay": 0.5}}, "recipe.weight_decay", [5e-4, 0.5], 5),
        ({"methods": {"student": None, "kd": {"weights": {"ce": 0.7}}}}, "method.weights.ce", [0.1, 0.7], 2),
        ({"methods": {"student": None, "kd": {"recipe": {"lr": 0.2}}}}, "recipe.lr", [0.05, 0.2], 2),
        ({"teachers": {"recipe": {"base": "digits_quick", "epochs": 3}}}, "teacher.recipe.epochs", [2, 3], 2),
        ({"dataset": {"name": "digits", "train_subset": 100}}, "dataset.train_subset", [None, 100], 5),
    ],
)
def test_a_changed_key_of_a_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: Any, key: str, values: list[Any], runs: int
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_command("diff", write("a.yaml"), write("b.yaml", **changes), "--json")
    facts = json.loads(result.out)
    of_key = [group for group in facts["changed"] if {"key": key, "a": values[0], "b": values[1]} in group["keys"]]
    assert result.code == 1 and sum(len(group["runs"]) for group in of_key) == runs, facts
    assert not facts["only_a"] + facts["only_b"] and facts["same"] + sum(len(g["runs"]) for g in facts["changed"]) == 5


def test_runs_of_one_file_only_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hot = {"student": None, "kd": {"params": {"temperature": 9}}, "fitnets": None}
    result = run_command("diff", write("a.yaml", seeds=3), write("b.yaml", methods=hot))
    lines = result.out.splitlines()
    assert lines[2] == "3 the same, 2 with other settings, 2 in A only, 2 in B only"
    assert lines[4].startswith(f"2 runs of {KD} (")
    assert [line.split() for line in lines[5:7]] == [["key", "A", "B"], ["method.params.temperature", "4.0", "9.0"]]
    assert [line.split("  ")[-1] for line in lines[7:]] == [
        "", "in A only:", "digits_net_w8 > digits_net_w4 / student / seed 2", f"{KD} / seed 2",
        "", "in B only:", *(f"digits_net_w8 > digits_net_w4 / fitnets / seed {seed}" for seed in (0, 1)),
    ]  # fmt: skip


def test_entries_of_one_method_are_paired_so_that_little_differs(tmp_path: Path) -> None:
    entries, others = (
        {f"kd{number}": {"use": "kd", "params": {"temperature": t}} for number, t in enumerate(temperatures)}
        for temperatures in ((1, 2, 3), (3, 2, 1))
    )
    first = plan(tmp_path, methods=entries).plan
    second = plan(tmp_path, methods=others, recipe={"base": "digits_quick", "epochs": 3}).plan
    differences = plan_differences(first, second)
    changed = [[d.key for d in pairs[0].differences.keys] for pairs in differences.changed]
    assert changed == [["recipe.epochs", "teacher.recipe.epochs"], ["recipe.epochs"]] and not differences.only_first


# Runs and stores -----------------------------------------------------------------------------------------------------


def copied(planned: Planned, of: str, **changes: Any) -> dict[str, Any]:
    (values,) = records.read_records(planned.store, [of]).to_pylist()
    return {**values, **changes}


def test_two_runs_differ_in_science_provenance_results_and_cost(trained: Planned) -> None:
    kd = next(k for k, run in trained.plan.runs.items() if run.label == f"{KD} / seed 0")
    hot = replace(trained.plan.runs[kd].science, method=replace(trained.plan.runs[kd].science.method, version=7))
    text = {"science": hot.text, "last_top1": 61.5, "hardware": "another CPU", "versions": '{"torch": "2.1"}'}
    values = copied(trained, kd, run_id=hot.run_id, **text, cost_total_s=19.0, status="diverged")
    records.write_record(trained.store, {k: v for k, v in values.items() if k != "schema_version"})
    result = run_command("diff", kd[:9], hot.run_id)
    parts = [[line.split("  ") for line in part.splitlines()] for part in result.out.split("\n\n")]
    table = {part[0][0].split(" (")[0]: [[w.strip() for w in words if w] for words in part[2:]] for part in parts[1:]}
    assert result.code == 1 and parts[0] == [[f"A {kd}", f"{KD} / seed 0"], [f"B {hot.run_id}", f"{KD} / seed 0"]]
    assert table == {
        "science": [["method.version", "1", "7"]],
        "provenance": [["hardware", "Intel(R) Xeon(R) Processor", "another CPU"], ["versions.torch", "2.0", "2.1"]],
        "results": [["last_top1", "60.0", "61.5", "+1.5"], ["status", "done", "diverged"]],
        "cost": [["cost_total_s", "9.0", "19.0", "+10"]],
    }
    facts = json.loads(run_command("diff", hot.run_id, kd, "--json").out)
    assert {"key": "last_top1", "a": 61.5, "b": 60.0, "difference": -1.5} in facts["results"]["keys"]
    assert run_command("diff", kd, kd).code == 0


def test_a_file_is_compared_with_the_run_that_it_would_train_again(trained: Planned) -> None:
    kd = next(k for k, run in trained.plan.runs.items() if run.label == f"{KD} / seed 1")
    result = run_command("diff", "small.yaml", kd)
    assert result.code == 0 and result.out == f"small.yaml trains run {kd}: {KD} / seed 1\n"
    longer = write("b.yaml", recipe={"base": "digits_quick", "epochs": 9})
    result = run_command("diff", kd, longer, "--json")
    epochs = [{"key": f"{of}recipe.epochs", "a": 2, "b": 9} for of in ("", "teacher.")]
    assert result.code == 1 and json.loads(result.out)["keys"] == epochs
    printed = run_command("diff", longer, kd).out.splitlines()
    assert printed[0].startswith("A b.yaml: run ") and printed[-1].split() == ["teacher.recipe.epochs", "9", "2"]
    result = run_command("diff", kd, write("c.yaml", seeds=1))
    assert result.code == 1 and "trains no run with the teacher, student, method and seed" in result.out


def test_stores_differ_in_runs_and_results_and_not_in_provenance(trained: Planned) -> None:
    shutil.copytree("results", "copy")
    assert run_command("diff", "results", "copy").code == 0
    first, second, third, *rest = sorted(trained.plan.runs)
    rows = [copied(trained, k) for k in rest]
    rows += [copied(trained, first, last_top1=60.25, host="elsewhere"), copied(trained, second, host="elsewhere")]
    put_compacted(Store.at(Path("b")), rows)
    result = run_command("diff", "results", "b")
    root, lines = trained.store.root, result.out.splitlines()
    assert result.code == 1 and lines[:2] == [f"A {root}: 5 runs", f"B {root.parent / 'b'}: 4 runs"]
    assert lines[2] == "4 in both, 3 of them with the same results, 1 with others; 1 in A only, 0 in B only"
    assert lines[4] == "in A only:" and lines[5].split()[0] == third and lines[7] == "results that differ:"
    assert lines[8].split()[0] == first and lines[10].split() == ["last_top1", "60.0", "60.25", "+0.25"]
    assert lines[13:] == ["  host: A here, B elsewhere (2 runs)"]
    facts = json.loads(run_command("diff", "b", "results", "--json").out)
    assert [run["run_id"] for run in facts["only_b"]] == [third] and facts["same"] == 3
    moved = {"git_commit": "c0ffee", "last_agreement": 91.5}  # older records have no fidelity, which is no difference
    put_compacted(Store.at(Path("moved")), [copied(trained, k, **moved) for k in trained.plan.runs])
    result = run_command("diff", "results", "moved")
    assert result.code == 0 and "git_commit: A x, B c0ffee (5 runs)" in result.out


def test_values_that_are_no_number_are_equal_to_themselves(trained: Planned) -> None:
    changes = {"last_loss": float("nan"), "last_top1": None, "status": "diverged"}
    rows = [copied(trained, k, **changes) for k in trained.plan.runs]
    for name in ("b", "c"):
        put_compacted(Store.at(Path(name)), rows)
    assert run_command("diff", "b", "c").code == 0
    facts = json.loads(run_command("diff", "results", "b", "--json").out)
    assert {"key": "last_top1", "a": 60.0, "b": None, "difference": None} in facts["results"][0]["keys"]


def test_what_cannot_be_compared_is_refused(trained: Planned) -> None:
    def error(*args: str) -> str:
        return run_command("diff", *args).error

    assert error("results", "small.yaml") == (
        "results is a store and small.yaml a sweep file; a store is compared with a store"
    )
    assert error("small.yaml", "smal.yaml").startswith("smal.yaml: ")
    assert error("resluts/", "results").startswith("resluts/: no such file or folder; expected a sweep file, a store")
    assert error("beef", "small.yaml").startswith("results: unknown finished run 'beef'")
    Path("folder").mkdir()
    assert error("results", "folder") == "folder: expected a store, but there is no record in this folder"
    run_id = next(iter(trained.plan.runs))
    assert error(run_id, run_id, "--results", "none").startswith("none: no such store")

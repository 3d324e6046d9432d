"""Estimates through the command line: ``sweep --plan``, ``--probe`` and the later comparison in ``report``."""

import json
import re
import shutil
from pathlib import Path

import pytest

from harness.store import checksums, records
from tests.support.bench import EPOCHS, METHODS, SWEEP, Bench
from tests.support.cli import REPO, process

IMPORTS_NO_TORCH = (
    "import sys; from harness.console.app import main\n"
    "try: main()\n"
    "finally: assert not {'torch', 'ffcv', 'deepspeed'} & set(sys.modules), 'heavy'\n"
)


def longer(bench: Bench) -> None:
    """Return the sweep with twice the student epochs: no run has a record, and all costs are known."""
    teachers = {"recipe": SWEEP["recipe"]}
    bench.sweep = {**SWEEP, "recipe": {**SWEEP["recipe"], "epochs": 2 * EPOCHS}, "teachers": teachers}


def test_a_plan_is_estimated_from_the_records_without_torch(finished: Bench, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    bench = Bench(tmp_path, cores=2)
    longer(bench)
    file = bench.command("status")[3]
    args = ("sweep", file, "--results", "results", "--max-parallel", "2", "--plan")
    result = process("-c", IMPORTS_NO_TORCH, *args, cwd=tmp_path)
    assert result.code == 0, result.err
    assert re.search(
        r"^time: \d+:\d\d \(\d+:\d\d to \d+:\d\d\), [\d.]+ \([\d.]+ to [\d.]+\) core-hours; "
        r"15 runs from 3 past runs of the same method and pair$",
        result.out,
        re.MULTILINE,
    ), result.out
    assert re.search(
        r"^disk: \d+ kB \(\d+ kB to [\d.]+ \wB\) in the end, at most [\d.]+ \wB meanwhile$", result.out, re.MULTILINE
    )
    options = ("--max-parallel", "2", "--packs-per-job", "1", "--plan", "--json")
    document = json.loads(bench.run("sweep", *options).stdout)
    foretold = document["estimate"]
    assert document["to_do"] == 15 and document["packs"] == 3 and document["jobs_at_once"] == 2
    # By hand: each of the three packs takes twice the training time of one, plus a job's other time.
    rows = records.read_records(finished.store, finished.store.done_ids()).to_pylist()
    packs = [[finished.row(finished.cells()[m, seed].run_id) for m in METHODS] for seed in (0, 1, 2)]
    trained = sorted(sum(row["cost_total_s"] for row in pack) for pack in packs)
    assert len(rows) == 16 and foretold["unit"] == "core"
    assert 3 * 2 * trained[0] < foretold["device_s"]["high"] and foretold["device_s"]["low"] < 3 * 2 * trained[-1] + 60
    assert foretold["elapsed_s"]["mid"] == pytest.approx(2 / 3 * foretold["device_s"]["mid"]), "two rounds of three"
    assert foretold["runs_of_unknown_time"] == [] and not (bench.store.root / "estimates/longer.json").exists()


def test_what_is_not_known_is_called_unknown(bench: Bench) -> None:
    result = bench.run("sweep", "--plan")
    assert result.returncode == 0 and "\ntime: " not in result.stdout
    assert (
        "\ntime unknown: 16 runs (teacher digits_net_w8 / seed 0 and 15 more)" in result.stdout
        and "--probe" in result.stdout
    )
    document = json.loads(bench.run("sweep", "--plan", "--json").stdout)["estimate"]
    assert document["elapsed_s"] is None is document["device_s"] and len(document["runs_of_unknown_time"]) == 16
    assert not bench.store.root.exists(), "a plan writes nothing"


@pytest.mark.parametrize(
    ("methods", "pair", "source"),
    [
        ({"kd": {"params": {"temperature": 2.0}}}, "digits_net_w8", "the same method and pair with other settings"),
        ({"dkd": {}}, "digits_net_w8", "the same pair by other methods"),
        ({"kd": {}}, "digits_net_w16", "the same student"),
    ],
)
def test_less_like_runs_are_named(
    finished: Bench, bench: Bench, methods: dict[str, object], pair: str, source: str
) -> None:
    bench.sweep = {**SWEEP, "methods": methods, "pairs": [{"teacher": pair, "student": "digits_net_w4"}]}
    bench.command("status")
    shutil.copytree(finished.store.root, bench.store.root)
    document = json.loads(bench.run("sweep", "--plan", "--json", "--max-parallel", "1").stdout)["estimate"]
    assert source in [basis["source"] for basis in document["bases"]]
    assert document["device_s"]["high"] >= 1.5 * document["device_s"]["mid"]


def test_a_probe_measures_steps_and_leaves_only_its_result(bench: Bench) -> None:
    bench.sweep = {**SWEEP, "methods": {"student": {}, "kd": {}, "ft": {}}, "seeds": [0, 1]}
    result = bench.run("sweep", "--plan", "--probe")
    assert result.returncode == 0, result.stderr
    first, *packs = [line for line in result.stderr.splitlines() if line.startswith("probe ")]
    assert re.fullmatch(
        r"probe 1 of 2, teacher digits_net_w8 / seed 0: [\d.]+ to [\d.]+ s a step, [\d.]+ s to start, on .+", first
    )
    assert packs[0].endswith("and 2 more: without ft: it begins with a first stage, which is not probed")
    assert "probe 2 of 2" in packs[1] and " s a step" in packs[1], "the seeds are one kind of pack"
    assert re.search(r"^time: .*; 5 runs from a probe$", result.stdout, re.MULTILINE), result.stdout
    assert "\ntime unknown: 2 runs (digits_net_w8 > digits_net_w4 / ft / seed 0 and 1 more)" in result.stdout
    folders = sorted(p.relative_to(bench.store.root).parts[0] for p in bench.store.root.rglob("*") if p.is_file())
    assert folders == ["probes", "probes"] and sorted(p.name for p in bench.folder.iterdir()) == [
        "results",
        "sweep.yaml",
    ]
    assert {row["state"] for row in bench.states().values()} == {"to do"}
    rerun = bench.run("sweep", "--plan")
    assert "5 runs from a probe" in rerun.stdout and rerun.stderr == "", "later plans know it"


def test_a_probe_of_a_method_that_fails_reports_the_cause(bench: Bench) -> None:
    broken = {"use": "tests.support.user_methods:NoSuchTap"}
    bench.sweep = {**SWEEP, "methods": {"kd": {}, "broken": broken}, "seeds": [0]}
    result = bench.run("sweep", "--plan", "--probe", "--only", "method=broken,kd")
    assert result.returncode == 2 and not result.stdout, result.stderr
    assert re.search(r"^probe 2 of 2, .*: without tests\S+:NoSuchTap: ", result.stderr, re.MULTILINE), result.stderr
    cause = "ValueError: the teacher has no tap named 'stage99'; it has: "
    assert f"error: digits_net_w8 > digits_net_w4 / broken / seed 0: {cause}" in result.stderr.splitlines()[-1]
    assert "2 runs from a probe" in bench.run("sweep", "--plan").stdout, "the others are measured"
    assert not (bench.store.root / "failures").exists()


def test_a_probe_is_of_this_machine(bench: Bench) -> None:
    result = bench.run("sweep", "--plan", "--probe", "--cluster", "loopback")
    assert (
        result.returncode == 2
        and result.stderr.startswith("error: --probe measures this machine")
        and not result.stdout
    )
    planned = bench.run("sweep", "--plan", "--cluster", "loopback")
    assert "time unknown" in planned.stdout and "--plan --probe in a job on a node measures" in planned.stdout


def test_the_estimate_is_stored_and_reported_next_to_the_actual_time(with_teacher: Bench, finished: Bench) -> None:
    with_teacher.sweep = {**SWEEP, "methods": {"student": {}}, "seeds": [0]}
    run_id = with_teacher.cells()["student", 0].run_id
    for path in (finished.store.record(finished.cells()["student", 1].run_id),):
        shutil.copy2(path, with_teacher.store.records)  # a similar run
    assert with_teacher.run("sweep").returncode == 0
    (estimate,) = checksums.open_value(json.loads(with_teacher.store.estimates("small").read_text()))
    assert estimate["run_ids"] == [run_id] and estimate["device_s"]["low"] > 0 and estimate["unknown"] == 0
    line = (
        r"^small: 1 run submitted \d{4}-\d\d-\d\d \d\d:\d\d: estimated \d+:\d\d \(\d+:\d\d to \d+:\d\d\), [\d.]+ "
        r"\([\d.]+ to [\d.]+\) core-hours, [\d.]+ kB \([\d.]+ kB to [\d.]+ kB\); took \d+:\d\d, [\d.]+ core-hours, "
        r"[\d.]+ kB$"
    )
    for form in ("md", "csv"):
        report = with_teacher.run("report", "--format", form)
        assert re.search(line, report.stderr, re.MULTILINE), report.stderr
        assert report.stdout == (with_teacher.store.table_folder("small") / f"table.{form}").read_text()
    document = json.loads(with_teacher.run("sweep", "--json").stdout)["submissions"]
    assert [s["run_ids"] for s in document] == [[run_id]] and document[0]["taken"]["records"] == 1
    row = with_teacher.row(run_id)
    lasted = (row["finished_at"] - row["started_at"]).total_seconds()
    assert document[0]["taken"]["device_s"] == {"core": pytest.approx(lasted * row["threads"])}
    assert lasted > row["cost_total_s"] > 0
    assert document[0]["taken"]["left_bytes"] > len(with_teacher.weights(run_id))
    verified = process("-m", "harness.verify", "--results", "results", cwd=with_teacher.folder)
    assert verified.code == 0, verified.out
    with_teacher.store.estimates("small").write_text("[{]")
    damaged = with_teacher.run("report")
    assert damaged.returncode == 0, "nothing hangs on it"
    assert damaged.stderr.endswith("small.json: damaged: not JSON; left out\n") and damaged.stderr.count("\n") == 1


def test_help_names_the_probe() -> None:
    result = process("-m", "harness.sweep", "--help", cwd=REPO)
    assert "--probe" in result.out and "few steps" in result.out

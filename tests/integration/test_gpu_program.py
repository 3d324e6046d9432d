"""The GPU program on a machine without a GPU: its refusals, every stage small on a CPU, and going on after a cut."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.findings import Finding, Findings
from benchmarks.gpu.stage_order import StageOrder
from benchmarks.gpu.summary import MOST_LINES
from harness.store.store import Store
from tests.support.cli import PATIENCE, REPO, CommandResult, process, run_module
from tests.support.warm_python import executable

pytestmark = pytest.mark.slow


def program(*args: object) -> CommandResult:
    return process("-m", "benchmarks.gpu", *args)


@pytest.fixture(scope="module")
def first_call(tmp_path_factory: pytest.TempPathFactory) -> tuple[CommandResult, Path]:
    """Run the whole program, without data."""
    folder = tmp_path_factory.mktemp("gpu")
    result = program("--smoke", "--minutes", 30, "--out", folder / "out", "--work", folder / "work")
    return result, folder / "out"


def of_kind(out: Path, kind: str) -> list[Finding]:
    return [f for f in Findings.of(out).read() if f.get("kind") == kind]


def test_a_machine_without_a_gpu_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = run_module("benchmarks.gpu", "--out", tmp_path / "out")
    assert "needs a CUDA GPU, and torch finds none here" in result.error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minutes", "0"], "--minutes 0: expected more than 0"),
        (["--data", "nowhere"], "--data nowhere: no such folder"),
        (["--resume", "benchmarks"], "--resume benchmarks: no results.jsonl in it"),
        (["--out", "Makefile"], "--out Makefile: not a folder"),
    ],
)
def test_wrong_options_are_refused(options: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    assert message in run_module("benchmarks.gpu", "--smoke", *options).error


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "submitit" else find_spec(name))
    assert re.match(r"missing packages: submitit; .*requirements.txt", run_module("benchmarks.gpu", "--smoke").error)


def test_every_stage_runs_and_leaves_what_it_measured(first_call: tuple[CommandResult, Path]) -> None:
    result, out = first_call
    assert result.code == 0, result.err + (out / "log.txt").read_text()[-3000:]
    assert [(f["stage"], f["finished"]) for f in of_kind(out, "end")] == [
        ("card", True), ("tests", True), ("throughput", True), ("row", True), ("large", True),
    ]  # fmt: skip
    assert of_kind(out, "machine")[0]["torch"] == torch.__version__
    assert {f["result"] for f in of_kind(out, "test")} == {"skipped"} and len(of_kind(out, "test")) > 15
    ours = {(f["precision"], f["members"], *f["methods"]): f for f in of_kind(out, "ours") if "graphs" not in f}
    assert {key[0] for key in ours} == {"bf16", "tf32", "float32"}
    pack = ours["bf16", 2, "kd"]
    assert pack["captured_graphs"] == 3, "one for each member and one for the teacher"
    assert {"data", "teacher", "student"} <= pack["parts_ms_per_step"].keys()
    assert pack["images_per_s_of_all"] == pytest.approx(2 * pack["images_per_s"], abs=0.2)
    assert pack["share_of_matrix_peak"] > 0 and pack["minutes_of_240_epochs"] > 0
    assert {f["precision"] for f in of_kind(out, "plain")} == {"bf16", "tf32", "float32"}
    (kernels,) = of_kind(out, "kernels")
    assert kernels["longest"] and sum(kernels["by_kind"].values()) == pytest.approx(
        kernels["kernel_ms_per_step"], abs=0.01
    )
    assert of_kind(out, "classifier")[0]["images_per_s"] > 0
    assert [f["what"] for f in of_kind(out, "not measured")] == ["coco128"], "no data were given"


def test_it_leaves_few_small_files_and_a_short_summary(first_call: tuple[CommandResult, Path]) -> None:
    result, out = first_call
    left = [path for path in out.rglob("*") if path.is_file()]
    assert {"results.jsonl", "figures.json", "log.txt", "records.parquet", "store.0"} == {path.name for path in left}
    assert len(left) <= 8 and all(path.stat().st_size < 16e6 and path.parent == out for path in left)
    lines = result.out.splitlines()
    assert len(lines) <= MOST_LINES and "digits_net_w4 > digits_net_w4" in result.out and "| kd" in result.out
    figures = json.loads((out / "figures.json").read_text())["figures"]
    assert figures["resnet8 -> resnet8 in bf16, pack of 2, times the plain loop"] > 0


def test_a_later_call_does_only_what_is_left(first_call: tuple[CommandResult, Path], tmp_path: Path) -> None:
    """It reads the first call's folder and changes nothing in it."""
    _, out = first_call
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert f"go on with --resume {out}" in program("--smoke", "--out", out).error
    again = tmp_path / "again"
    result = program("--smoke", "--minutes", 30, "--out", again, "--work", tmp_path / "work", "--resume", out)
    assert result.code == 0, result.err
    assert result.err.count("finished in an earlier call") == 4
    assert "resnet8 -> resnet8, bf16, pack of 2" in result.out and "| kd" in result.out
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_training_that_is_cut_off_goes_on_from_what_was_left(tmp_path: Path) -> None:
    """The stage is told to end in mid-training, and its work folder is lost."""

    def start(work: str) -> subprocess.Popen[bytes]:
        order = StageOrder(tmp_path, tmp_path / work, None, time.time() + PATIENCE, smoke=True)
        command = [executable(), "-m", "benchmarks.gpu.published_row", order.to_argument()]
        environment = {**os.environ, "KD_CHECKPOINT_SECONDS": "0"}
        return subprocess.Popen(command, cwd=REPO, env=environment, start_new_session=True)

    first = start("work")
    while first.poll() is None and not list((tmp_path / "work").glob("store/runs/*/checkpoints/epoch-000003-*")):
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGTERM)
    assert first.wait() == 0
    assert of_kind(tmp_path, "in training")
    assert of_kind(tmp_path, "trained")[-1]["done"] < 2
    shutil.rmtree(tmp_path / "work")

    assert start("other").wait() == 0
    assert [f["intact"] for f in of_kind(tmp_path, "restored")] == [True]
    assert of_kind(tmp_path, "trained")[-1]["done"] == 2
    store = Store(tmp_path / "other" / "store")
    assert sorted(len(store.attempts(run_id)) for run_id in store.done_ids()) == [1, 2]
    assert of_kind(tmp_path, "table")

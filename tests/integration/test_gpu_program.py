"""The GPU program on a machine without a GPU: its refusals, every stage small on a CPU, and going on after a cut."""

import fcntl
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.findings import Finding, Findings
from benchmarks.gpu.program import Program, Stage
from benchmarks.gpu.stage_order import StageOrder
from benchmarks.gpu.summary import MOST_LINES
from harness.store.store import Store
from tests.support.cli import PATIENCE, REPO, CommandResult, process, run_module
from tests.support.images import encode_jpeg, picture
from tests.support.warm_python import executable

pytestmark = pytest.mark.slow


def program(*args: object) -> CommandResult:
    return process("-m", "benchmarks.gpu", *args)


@pytest.fixture(scope="module")
def first_call(tmp_path_factory: pytest.TempPathFactory) -> tuple[CommandResult, Path]:
    """Run the whole program, with a few images in place of coco128."""
    folder = tmp_path_factory.mktemp("gpu")
    write_coco128(folder / "data")
    options = ("--data", folder / "data", "--out", folder / "out", "--work", folder / "work")
    return program("--smoke", "--minutes", 30, *options), folder / "out"


def write_coco128(root: Path) -> None:
    images, boxes = root / "coco128" / "images" / "train2017", root / "coco128" / "annotations"
    images.mkdir(parents=True)
    boxes.mkdir()
    sizes = [{"id": i, "file_name": f"{i}.jpg", "width": 120, "height": 100} for i in range(1, 9)]
    for i, size in enumerate(sizes):
        (images / size["file_name"]).write_bytes(encode_jpeg(picture(100, 120, i)))
    objects = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [10, 10, 60, 50], "area": 3000, "iscrowd": 0}
        for i in range(1, 9)
    ]
    content = {"images": sizes, "annotations": objects, "categories": [{"id": 1, "name": "thing"}]}
    (boxes / "instances_train2017.json").write_text(json.dumps(content))


def of_kind(out: Path, kind: str) -> list[Finding]:
    return [f for f in Findings.of(out).read() if f["kind"] == kind]


def test_a_machine_without_a_gpu_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = run_module("benchmarks.gpu", "--out", tmp_path / "out")
    assert "needs a CUDA GPU, and torch finds none here" in result.error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minutes", "-1"], "--minutes -1: expected at least 0"),
        (["--minutes", "nan"], "--minutes nan: expected at least 0"),
        (["--data", "nowhere"], "--data nowhere: no such folder"),
        (["--resume", "benchmarks"], "--resume benchmarks: no results.jsonl in it"),
        (["--out", "Makefile"], "--out Makefile: not a folder"),
        (["--out", "Makefile/out"], "Makefile/out: Not a directory"),
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
        ("card", True), ("tests", True), ("throughput", True), ("row", True), ("imagenet", True), ("coco", True),
    ]  # fmt: skip
    assert of_kind(out, "machine")[0]["torch"] == torch.__version__
    assert {f["result"] for f in of_kind(out, "test")} == {"skipped"} and len(of_kind(out, "test")) > 15
    assert of_kind(out, "not measured") == []
    ours = {(f["precision"], f["members"], *f["methods"]): f for f in of_kind(out, "ours") if "graphs" not in f}
    assert {key[0] for key in ours} == {"bf16", "float32"}
    pack = ours["bf16", 2, "kd"]
    assert pack["captured_graphs"] == 3, "one for each member and one for the teacher"
    assert {"data", "teacher", "student"} <= pack["parts_ms_per_step"].keys()
    assert pack["images_per_s_of_all"] == pytest.approx(2 * pack["images_per_s"], abs=0.2)
    assert pack["share_of_matrix_peak"] > 0 and pack["minutes_of_240_epochs"] > 0
    assert {f["precision"] for f in of_kind(out, "plain")} == {"bf16", "float32"}
    for kernels in of_kind(out, "kernels"):
        assert kernels["longest"] and 0 < kernels["busy_ms_per_step"] <= 1.01 * kernels["ms_per_step"]
    assert of_kind(out, "classifier")[0]["images_per_s"] > 0
    assert of_kind(out, "detector")[0]["steps"] > 0


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
    """It reads the first call's folder, changes nothing in it, and refuses to write where another call writes."""
    _, out = first_call
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert f"go on with --resume {out}" in program("--smoke", "--out", out).error
    again = tmp_path / "again"
    options = ("--smoke", "--minutes", 30, "--out", again, "--work", tmp_path / "work", "--resume")
    result = program(*options, out)
    assert result.code == 0, result.err
    assert result.err.count("finished in an earlier call") == 5
    assert "resnet8 -> resnet8, bf16, pack of 2" in result.out and "| kd" in result.out
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    with (again / "log.txt").open("a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        assert "another call of this program is using it" in program(*options, again).error


def test_it_ends_in_time_although_a_stage_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stage ignores requests to end; the one before it has ended by itself."""
    module = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"
    (tmp_path / "hanging.py").write_text(module)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("benchmarks.gpu.program.SAVE_SECONDS", 0.1)
    monkeypatch.setattr("benchmarks.gpu.program.GRACE_SECONDS", 0.1)
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> "popen[bytes]":
        if "benchmarks.gpu.hanging" in command:
            command = [command[0], str(tmp_path / "hanging.py")]
        return popen(command, **options)

    monkeypatch.setattr("benchmarks.gpu.program.subprocess.Popen", start)
    stages = (Stage("card", "card", 60), Stage("hanging", "hanging", 1.0))
    monkeypatch.setattr("benchmarks.gpu.program.STAGES", stages)
    now = time.time()
    order = StageOrder(tmp_path / "out", tmp_path / "work", None, now, now + PATIENCE, smoke=True)
    order.out.mkdir()
    assert Program(order, resumed=False).run() == 0
    ends = {f["stage"]: f for f in of_kind(order.out, "end")}
    assert ends["card"]["finished"] and not ends["hanging"]["finished"]
    assert "stage hanging: not finished: it was ended when its time was over" in capsys.readouterr().out


def test_training_that_is_cut_off_goes_on_from_what_was_left(tmp_path: Path) -> None:
    """The stage is told to end in mid-training, and its work folder is lost."""

    def start(work: str) -> subprocess.Popen[bytes]:
        order = StageOrder(tmp_path, tmp_path / work, None, time.time(), time.time() + PATIENCE, smoke=True)
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
    assert not of_kind(tmp_path, "damaged")
    assert of_kind(tmp_path, "trained")[-1]["done"] == 2
    store = Store(tmp_path / "other" / "store")
    assert sorted(len(store.attempts(run_id)) for run_id in store.done_ids()) == [1, 2]
    assert of_kind(tmp_path, "table")

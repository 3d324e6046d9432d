"""A trained student, fine-tuned here, is used elsewhere: loaded, exported, measured after its best epoch."""

import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import harness
from harness.data.load.digits import read_arrays
from harness.errors import UserError
from harness.models.zoo import build_model
from harness.spec.science import DatasetChoice
from harness.store import records
from harness.store.saved_run import SavedRun
from harness.training import exporters
from harness.training.classifier import load_classifier
from harness.training.job import run_job
from harness.training.job_order import JobOrder
from tests.support.bench import Bench
from tests.support.cli import CommandResult, run_command
from tests.support.sciences import make_science

NET, FILE = "digits_net_w4", "five.safetensors"
SWEEP: dict[str, Any] = {
    "dataset": {"name": "digits", "train_subset": 200},
    "recipe": {"base": "digits_quick", "epochs": 4, "batch_size": 16},
    "methods": ["student", "simkd"],
    "pairs": [
        {
            "teacher": NET,
            "student": NET,
            "student_weights": {"file": "five.safetensors"},
            "recipe": {"freeze": ["conv1"]},
        }
    ],
    "seeds": 1,
}


def with_weights(folder: Path) -> Bench:
    torch.manual_seed(1)
    save_file(dict(build_model(NET, 5, in_channels=1).state_dict()), folder / "five.safetensors")
    return Bench(folder, SWEEP)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, CommandResult]]:
    bench = with_weights(tmp_path_factory.mktemp("trained"))
    yield bench, bench.call("sweep", "--keep-best")
    bench.clean_up()


@pytest.fixture
def bench(trained: tuple[Bench, CommandResult], monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.chdir(trained[0].folder)
    return trained[0]


def row(bench: Bench, method: str) -> dict[str, Any]:
    return bench.row(bench.cells()[method, 0].run_id)


def test_the_log_says_what_students_start_from_and_frozen_parts_stay(
    trained: tuple[Bench, CommandResult], bench: Bench
) -> None:
    note = f"{NET} starts from weights {bench.folder}/five.safetensors: not its last layer (fc), which starts from"
    assert trained[1].code == 0, trained[1].err
    logs = [path.read_text() for path in bench.store.jobs.glob("*/log.out")]
    assert sum(log.count(note) for log in logs) == 1  # in the students' job, and not in the teacher's
    started = load_file(bench.folder / "five.safetensors")
    for file in (bench.store.student_weights, bench.store.best_weights):
        of_run = load_file(file(row(bench, "student")["run_id"]))
        assert torch.equal(of_run["conv1.weight"], started["conv1.weight"])
        assert not torch.equal(of_run["layer1.0.conv1.weight"], started["layer1.0.conv1.weight"])


@pytest.mark.parametrize("method", ["student", "simkd"])
@pytest.mark.parametrize("epoch", ["last", "best"])
def test_a_loaded_model_has_the_records_accuracy(bench: Bench, method: str, epoch: str) -> None:
    record, data = row(bench, method), read_arrays(None)
    model = harness.load_model(record["run_id"][:8], "results", epoch)
    pixels, targets = torch.from_numpy(data.test_images), torch.from_numpy(data.test_targets)
    logits = model(pixels)
    assert torch.allclose(model(pixels / 255), logits, atol=1e-6)
    top1 = 100 * float((logits.argmax(1) == targets).float().mean())
    assert top1 == pytest.approx(record[f"{epoch}_top1"], abs=1e-4)
    assert (model.classes, model.image_shape, model.science.method.use) == (10, (1, 8, 8), method)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    with pytest.raises(TypeError, match="int64"):
        model(pixels.long())


def test_the_best_epoch_is_measured_again(bench: Bench) -> None:
    record = row(bench, "student")
    result = run_command("evaluate", "--run", record["run_id"], "--epoch", "best", "--json")
    assert json.loads(result.out)["top1"] == pytest.approx(record["best_top1"], abs=1e-6)
    assert (
        "unknown epoch 'bets'; did you mean 'best'?"
        in run_command("evaluate", "--run", record["run_id"], "--epoch", "bets").error
    )
    assert run_command("evaluate", "--dataset", "digits", "--epoch", "best").error == "--epoch goes with --run"


@pytest.mark.parametrize("to", ["safetensors", "torchscript"])
def test_an_export_computes_what_the_run_does(bench: Bench, to: str, tmp_path: Path) -> None:
    run_id, out = row(bench, "simkd")["run_id"], tmp_path / "net"
    command = ("export", run_id, "--to", to, "--out", out, "--epoch", "best", "--json")
    result = json.loads(run_command(*command).out)
    assert result["differences"] == {"random": 0.0, "real": 0.0} and out.exists()
    assert "exists already; --force replaces it" in run_command(*command).error
    assert run_command(*command, "--force").code == 0
    if to == "torchscript":
        images = torch.rand(3, 1, 8, 8)
        model = harness.load_model(run_id, epoch="best")
        assert torch.allclose(torch.jit.load(str(out))(images), model(images), atol=1e-6)


def test_an_export_that_computes_something_else_is_not_written(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporters, "open_export", lambda *_: lambda images: torch.full((len(images), 10), torch.nan))
    command = ("export", row(bench, "student")["run_id"], "--to", "safetensors", "--out", tmp_path / "net")
    assert "not written: outputs in safetensors differ by nan on random images" in run_command(*command).error
    assert not list(tmp_path.iterdir())


def test_onnx(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("export", row(bench, "student")["run_id"], "--to", "onnx", "--out", tmp_path / "net.onnx")
    try:
        exporters.check_packages("onnx")
    except UserError:
        assert run_command(*command).error.startswith("--to onnx needs onnx")
        return
    result = run_command(*command, "--json")
    assert max(json.loads(result.out)["differences"].values()) < 1e-5


def test_changed_weights_of_the_best_epoch_are_noticed(bench: Bench, tmp_path: Path) -> None:
    store, run_id = tmp_path / "results", row(bench, "student")["run_id"]
    shutil.copytree(bench.store.root, store)
    assert run_command("verify", "--results", store).code == 0
    file = store / "runs" / run_id / "student.best.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    verified = run_command("verify", "--results", store)
    message = f"{file}: damaged: its content does not match its checksum"
    assert verified.code == 1 and f"DAMAGED {message}" in verified.out
    with pytest.raises(UserError, match=message):
        harness.load_model(run_id, store, "best")
    file.unlink()
    best = records.read_records(bench.store, [run_id], ["best_epoch"]).to_pylist()[0]["best_epoch"]
    if best < 4:
        with pytest.raises(UserError, match=rf"its best epoch \({best}\) were not kept: `sweep --keep-best`"):
            harness.load_model(run_id, store, "best")


def test_the_best_epochs_weights_survive_an_interruption(bench: Bench, tmp_path: Path) -> None:
    """A job that stops and is resumed, later without the request, keeps what it has begun to keep."""
    run_ids = tuple(bench.cells()[method, 0].run_id for method in SWEEP["methods"])
    other = with_weights(tmp_path)
    teacher = bench.cells()["simkd", 0].teacher_run
    assert teacher
    other.take(bench, teacher)
    planned = bench.plan()
    for run_id in run_ids:
        other.store.write_science(run_id, planned.plan.runs[run_id].science)
    weights = planned.weights_files(run_ids)
    for stop_after in (30, 5, None):  # of 4 epochs of 13 steps: in the third, and in the same
        order = JobOrder(str(other.store.root.resolve()), run_ids, None, weights, 1, keep_best=stop_after == 30)
        asked = itertools.count(1)
        assert run_job(order, lambda n=stop_after, asked=asked: next(asked) == n) is (stop_after is None)  # type: ignore[misc]
    for run_id in run_ids:
        assert other.store.best_weights(run_id).read_bytes() == bench.store.best_weights(run_id).read_bytes()
        assert other.row(run_id)["best_epoch"] == bench.row(run_id)["best_epoch"]


def test_finished_runs_without_best_weights_are_told(bench: Bench, tmp_path: Path) -> None:
    store = tmp_path / "results"
    shutil.copytree(bench.store.root, store)
    for file in store.glob("runs/*/student.best.safetensors"):
        file.unlink()
    planned = run_command("sweep", "sweep.yaml", "--results", store, "--plan", "--keep-best")
    assert "3 finished runs trained without --keep-best, with the last weights only" in planned.out


def test_detectors_and_models_that_only_a_record_names_are_refused(tmp_path: Path) -> None:
    coco = DatasetChoice("coco", "ab" * 32, classes=80, train_size=10, test_size=5)
    for science, message in (
        (replace(make_science("fasterrcnn_resnet18_fpn"), dataset=coco), "only classifiers can be loaded"),
        (make_science("no_such_package.nets:Tiny"), "name it by --own-model"),
    ):
        with pytest.raises(UserError, match=message):
            load_classifier(SavedRun("ab" * 8, science, "last", tmp_path / "student.safetensors", None))

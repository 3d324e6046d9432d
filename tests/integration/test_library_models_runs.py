"""Run a sweep of timm models from the file to the table, and load its weights into timm."""

import json
from pathlib import Path

import pytest
import timm
from safetensors.torch import load_file

from harness.store import records
from harness.store.store import Store
from tests.support.cli import REPO, process, run_command

SWEEP = """
dataset: {name: digits, train_subset: 100}
recipe: {base: digits_quick, epochs: 1, batch_size: 16}
methods: {at: , fitnets: {params: {tap: module.layer2}}}
pairs: [{teacher: timm:test_resnet, student: timm:test_resnet}]
seeds: [1]
"""


def test_timm_models_are_trained_and_evaluated(tmp_path: Path) -> None:
    file, store = tmp_path / "sweep.yaml", tmp_path / "results"
    file.write_text(SWEEP)
    sweep_result = process("-m", "harness.sweep", file, "--results", store, "--max-parallel", 1, cwd=REPO)
    assert sweep_result.code == 0, sweep_result
    weights = {path.parent.name: path for path in store.glob("runs/*/student.safetensors")}
    assert len(weights) == 3
    for file in weights.values():
        timm.create_model("test_resnet", num_classes=10, in_chans=1).load_state_dict(load_file(file))
    args = ("--dataset", "digits", "--model", "timm:test_resnet", "--json")
    rows = records.read_records(Store(store), weights).to_pylist()
    result = run_command("evaluate", *args, "--weights", weights[rows[0]["run_id"]])
    assert result.code == 0 and json.loads(result.out)["top1"] == pytest.approx(rows[0]["last_top1"]), result


def test_transformers_and_mixers_are_trained_under_a_cnn(tmp_path: Path) -> None:
    sizes = ("dataset.train_subset=20", "dataset.validation=10", "recipe.batch_size=10")
    options = ["--only", "method=at", "--no-check", *(option for size in sizes for option in ("--set", size))]
    file, store = REPO / "benchmarks" / "hetero_quick.yaml", tmp_path / "results"
    result = process("-m", "harness.sweep", file, *options, "--results", store, cwd=REPO)
    assert result.code == 0, result
    rows = records.read_records(Store(store), Store(store).done_ids()).to_pylist()
    students = {row["student"].partition("(")[0] for row in rows if row["teacher"]}
    assert students == {"timm:vit_tiny_patch16_224", "timm:mixer_s16_224"}
    assert all(row["status"] == "done" for row in rows)

"""Tuning without the test set: runs are evaluated on held-out training images and labelled so."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.data.load import arrays
from harness.spec.science import DatasetChoice
from harness.spec.tasks import DATASETS
from harness.store import records
from tests.support.bench import SWEEP, Bench
from tests.support.cli import REPO
from tests.support.warm_python import executable

HELD_OUT = 100
TUNING = {
    **SWEEP,
    "dataset": {"name": "digits", "validation": HELD_OUT},
    "recipe": {"base": "digits_quick", "epochs": 1},
    "methods": ["student", "kd"],
    "seeds": 1,
}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = Bench(tmp_path_factory.mktemp("tuning"), TUNING)
    result = bench.run("sweep")
    assert result.returncode == 0, result.stderr
    return bench


def rows(bench: Bench) -> dict[str, dict[str, Any]]:
    return {row["run_id"]: row for row in records.read_records(bench.store, bench.store.done_ids()).to_pylist()}


def test_runs_and_their_teacher_hold_out_images_and_use_no_test_image(tuned: Bench) -> None:
    assert len(rows(tuned)) == 3
    for row in rows(tuned).values():
        assert (row["train_size"], row["evaluated_on"], row["evaluated_size"]) == (1442 - HELD_OUT, "validation", 100)
        names = {c["name"] for c in row["curves"]}
        assert "validation_top1" in names and not any(name.startswith("test_") for name in names)
        assert json.loads(row["science"])["dataset"]["validation"] == HELD_OUT


def test_a_teacher_trained_here_is_measured_on_the_images_its_own_run_was(tuned: Bench) -> None:
    kd = next(r for r in rows(tuned).values() if r["method"] == "kd")
    assert kd["teacher_top1"] == rows(tuned)[kd["teacher_run"]]["last_top1"]
    assert kd["teacher_top5"] == rows(tuned)[kd["teacher_run"]]["last_top5"]


def test_given_weights_are_measured_on_the_test_set(tuned: Bench, tmp_path: Path) -> None:
    run_id = next(r["teacher_run"] for r in rows(tuned).values() if r["teacher_run"])
    weights = tuned.store.student_weights(run_id)
    args = ["--dataset", "digits", "--model", "digits_net_w8", "--weights", str(weights), "--json"]
    document = json.loads(subprocess.check_output([executable(), "-m", "harness.evaluate", *args], cwd=REPO))
    assert document["top1"] != rows(tuned)[run_id]["last_top1"], "the two must tell apart which images were used"
    pair = {**SWEEP["pairs"][0], "teacher_weights": {"file": str(weights), "top1": round(document["top1"], 2)}}
    bench = Bench(tmp_path, {**TUNING, "methods": ["kd"], "pairs": [pair]})
    result = bench.run("sweep")
    assert result.returncode == 0, result.stderr
    (row,) = rows(bench).values()
    assert row["teacher_top1"] == document["top1"] and row["evaluated_on"] == "validation"


def test_the_table_states_the_held_out_images(tuned: Bench) -> None:
    notes = (tuned.store.table_folder("small") / "table.md").read_text()
    assert "1,342 training images, 100 held-out training images for validation, NOT the test set" in notes
    assert "'best' the best validation epoch's" in notes


def test_of_each_class_the_last_images_are_held_out_and_the_first_are_trained_on() -> None:
    data = arrays.read_dataset(DATASETS["digits"], None)
    dataset = DatasetChoice("digits", "", train_subset=200, validation=300)
    chosen = data.chosen(dataset)
    for c in range(10):
        of_class = data.train_images[data.train_targets == c]
        assert np.array_equal(chosen.train_images[chosen.train_targets == c], of_class[:20])
        assert np.array_equal(chosen.test_images[chosen.test_targets == c], of_class[-30:])
    rest = data.chosen(replace(dataset, train_subset=None))
    assert len(rest.train_images) == len(data.train_images) - 300 and len(rest.test_images) == 300
    untouched = data.chosen(replace(dataset, validation=None))
    assert untouched.test_images is data.test_images

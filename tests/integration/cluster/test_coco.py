"""Train the shipped quick COCO sweep, shorter, through SLURM, with two processes a run. It overfits its images."""

import json
import os
from pathlib import Path

import pytest
import yaml

from harness.data.load.coco import CocoSource
from harness.training.tasks.detection_evaluation import coco_metrics
from tests.support.bench import SELDOM
from tests.support.cli import REPO, run_command
from tests.support.cluster_bench import ON_SLURM, ClusterBench, recorded_once

IMAGES = Path(os.environ.get("KD_DATA", "none")) / "coco128"

pytestmark = [*ON_SLURM, pytest.mark.skipif(not IMAGES.is_dir(), reason="KD_DATA has no coco128")]


def test_from_annotations_to_the_table(bench: ClusterBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train a teacher and ReKD's student; tests/integration/test_coco.py trains all methods for two epochs."""
    pytest.importorskip("pycocotools")
    data = bench.folder / "data"
    assert run_command("prepare", "coco", "--source", IMAGES, "--out", data / "coco128_prepared").code == 0
    monkeypatch.setenv("KD_DATA", str(data))  # for this process's own view of the plan
    bench.profile = {"resources": {"tasks_per_node": 2, "mem_gb": 7}}
    sweep = yaml.safe_load((REPO / "benchmarks" / "coco128_quick.yaml").read_text())
    sweep["methods"] = {"rekd": {**sweep["methods"]["rekd"], "weights": {"select": 0.1}}}  # its teacher knows little
    sweep["pairs"][0]["teacher"] = sweep["pairs"][0]["student"]  # half as long as the sweep's own teacher
    sweep["dataset"]["train_subset"] = 10
    small = {"base": sweep["recipe"], "batch_size": 5, "sides": [48], "max_side": 80, "eval_side": 48}
    sweep["recipe"] = {**small, "eval_every": 10}
    sweep["teachers"] = {"recipe": {**small, "epochs": 2, "milestones": [], "eval_every": 1}}
    bench.sweep, bench.checkpoint_seconds = sweep, SELDOM

    result = bench.run("sweep", "--data", str(data))
    assert result.returncode == 0, result.stderr
    recorded_once(bench)
    assert "AP last" in result.stdout
    for method, cell in ((method, cell) for (method, _), cell in bench.cells().items()):
        row = bench.row(cell.run_id)
        assert row["processes"] == 2 and row["status"] == "done"
        curve = {c["epoch"]: c["value"] for c in row["curves"] if c["name"] == "train_AP"}
        assert min(curve) < max(curve) == row["epochs"]
        assert curve[min(curve)] < 2 and row["last_AP"] == curve[max(curve)] > 5, (method, curve)
        losses = {c["epoch"]: c["value"] for c in row["curves"] if c["name"] == "train_ce"}
        assert losses[row["epochs"]] < losses[1] / 2, method
        agree_on_real_detections(bench, cell.run_id, data / "coco128_prepared")


def agree_on_real_detections(bench: ClusterBench, run_id: str, folder: Path) -> None:
    """Check that two implementations of COCO's metric and the record agree."""
    faster = pytest.importorskip("faster_coco_eval")
    import torch

    science = bench.store.read_science(run_id)
    source = CocoSource(science.dataset, science.recipe, folder, torch.device("cpu"), 1)
    truth = source.evaluation().annotations
    document = json.loads(bench.store.predictions(run_id).read_text())
    metrics = coco_metrics(truth, document)
    row = bench.row(run_id)
    assert metrics == {name: row[f"last_{name}"] for name in metrics}
    of_truth = faster.COCO(truth)
    evaluator = faster.COCOeval_faster(of_truth, of_truth.loadRes(document), "bbox")
    evaluator.run()
    for (name, value), theirs in zip(metrics.items(), evaluator.stats[:6], strict=True):
        assert value is None or abs(value / 100 - theirs) < 1e-9, name

"""Train the shipped quick ImageNet sweep on prepared JPEGs through SLURM: two processes a run, with DeepSpeed."""

import os
from pathlib import Path

import pytest
import yaml
from safetensors.torch import save_file

from harness.models.zoo import build_model
from tests.support.bench import SELDOM
from tests.support.cli import REPO, run_command
from tests.support.cluster_bench import ON_SLURM, ClusterBench, recorded_once

IMAGES = Path(os.environ.get("KD_DATA", "none")) / "tiny_imagenet_20"

pytestmark = [*ON_SLURM, pytest.mark.skipif(not IMAGES.is_dir(), reason="KD_DATA has no tiny_imagenet_20")]


def test_from_jpegs_to_the_table_with_deepspeed(bench: ClusterBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a tenth of the images, half of the sweep's epochs, two methods, and a teacher that is given. The processes
    share a copy of the images on their node."""
    pytest.importorskip("deepspeed")
    data, some = bench.folder / "data", bench.folder / "some"
    for split, count in (("train", 10), ("val", 5)):
        for folder in (IMAGES / split).iterdir():
            (some / split / folder.name).mkdir(parents=True)
            for image in sorted(folder.iterdir())[:count]:
                (some / split / folder.name / image.name).symlink_to(image)
    prepared = data / "tiny_imagenet_20_prepared"
    assert run_command("prepare", "imagefolder", "--source", some, "--out", prepared).code == 0
    monkeypatch.setenv("KD_DATA", str(data))  # for this process's own view of the plan
    bench.profile = {
        "resources": {"tasks_per_node": 2, "mem_gb": 7, "engine": "deepspeed", "zero_stage": 1},
        "setup": [f"export SCRATCH={bench.folder / 'scratch'}"],
        "stage": {"data": "$SCRATCH/kd"},
    }
    sweep = yaml.safe_load((REPO / "benchmarks" / "imagenet_like_quick.yaml").read_text())
    sweep["methods"] = {name: sweep["methods"][name] for name in ("crd", "rekd")}
    sweep["dataset"]["train_subset"] = 100
    (pair,) = sweep["pairs"]
    save_file(build_model(pair["teacher"], 20).state_dict(), bench.folder / "teacher.safetensors")
    pair["teacher_weights"] = {"file": "teacher.safetensors"}
    sweep["recipe"] |= {"epochs": 2, "image_size": [[0, 48], [1, 64]]}
    bench.sweep, bench.checkpoint_seconds = sweep, SELDOM

    result = bench.run("sweep", "--data", str(data))
    assert result.returncode == 0, result.stderr
    recorded_once(bench)
    logs = "".join(log.read_text() for log in bench.store.jobs.glob("*/*_log.out"))
    (copy,) = (bench.folder / "scratch/kd").glob("tiny_imagenet_20_prepared-*")
    ends = [logs.count(f"data staged to {copy} ({how}") for how in ("", "already there)")]
    assert ends == [2, 1] and str(prepared) not in logs, "none reads the original"
    assert all(method in result.stdout for method in sweep["methods"])
    for cell in bench.cells().values():
        row = bench.row(cell.run_id)
        assert row["processes"] == 2 and row["status"] == "done" and row["evaluated_size"] == 100
        assert row["cost_waiting_s"] > 0, "for the first images of a pass, if for no others"
        losses = {c["epoch"]: c["value"] for c in row["curves"] if c["name"] == "train_ce"}
        assert losses[2] < losses[1], cell.method

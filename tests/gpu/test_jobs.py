"""Jobs on a GPU: a sweep of the command line, and a pack that is stopped and resumed."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.bench import STEPS, SWEEP, Bench, forkserver, teacher_run


class GpuBench(Bench):
    """A bench whose commands see this machine's GPUs."""

    def _process_options(self) -> dict[str, Any]:
        options = super()._process_options()
        environment = {k: v for k, v in options["env"].items() if k != "CUDA_VISIBLE_DEVICES"}
        visible = {k: v for k, v in os.environ.items() if k == "CUDA_VISIBLE_DEVICES"}
        return {**options, "env": environment | visible}


def test_a_sweep_and_a_pack_that_is_resumed_end_alike(tmp_path: Path) -> None:
    """Sums on a GPU are in no fixed order, so that losses are nearly equal and accuracies differ by a few images."""
    forkserver.set_forkserver_preload(["harness.training.job"])
    sweep = {**SWEEP, "seeds": [0]}
    whole, resumed = (GpuBench(tmp_path / name, sweep) for name in ("whole", "resumed"))
    for bench in (whole, resumed):
        bench.store.root.mkdir(parents=True)
    result = whole.run("sweep")
    assert result.returncode == 0, result.stderr
    cells = whole.cells()
    ids = [cell.run_id for cell in cells.values()]
    resumed.take(whole, teacher_run(whole))
    try:
        for stop_after in (5, STEPS + 3):
            assert resumed.train(*ids, stop_after=stop_after) == 0
            assert not resumed.store.done_ids() & set(ids)
        assert resumed.train(*ids) == 0
    finally:
        resumed.clean_up()
    for (method, _), cell in cells.items():
        row, expected = resumed.row(cell.run_id), whole.row(cell.run_id)
        assert row["hardware"] == expected["hardware"] == torch.cuda.get_device_name()
        assert (row["attempts"], expected["attempts"]) == (3, 1)
        assert abs(row["last_top1"] - expected["last_top1"]) < 5, method
        first = {c["name"]: c["value"] for c in expected["curves"] if c["epoch"] == 1 and "train" in c["name"]}
        got = {c["name"]: c["value"] for c in row["curves"] if c["epoch"] == 1}
        assert {name: got[name] for name in first} == pytest.approx(first, rel=1e-2), method

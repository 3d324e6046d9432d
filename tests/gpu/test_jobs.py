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


def benches(folder: Path, sweep: dict[str, Any]) -> tuple[GpuBench, GpuBench]:
    """Make two benches of a sweep."""
    forkserver.set_forkserver_preload(["harness.training.job"])
    first, second = (GpuBench(folder / name, sweep) for name in ("first", "second"))
    for bench in (first, second):
        bench.store.root.mkdir(parents=True)
    return first, second


def assert_nearly_same(row: dict[str, Any], expected: dict[str, Any], method: str) -> None:
    """Sums on a GPU are in no fixed order, so that losses are nearly equal and accuracies differ by a few images."""
    assert row["hardware"] == expected["hardware"]
    assert abs(row["last_top1"] - expected["last_top1"]) < 5, method
    first = {c["name"]: c["value"] for c in expected["curves"] if c["epoch"] == 1 and "train" in c["name"]}
    got = {c["name"]: c["value"] for c in row["curves"] if c["epoch"] == 1}
    assert {name: got[name] for name in first} == pytest.approx(first, rel=1e-2), method


def test_a_sweep_and_a_pack_that_is_resumed_end_alike(tmp_path: Path) -> None:
    whole, resumed = benches(tmp_path, {**SWEEP, "seeds": [0]})
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
        assert expected["hardware"] == torch.cuda.get_device_name()
        assert (row["attempts"], expected["attempts"]) == (3, 1)
        assert_nearly_same(row, expected, method)


def test_packs_that_take_turns_end_as_in_jobs_of_their_own(tmp_path: Path) -> None:
    """A job of two seeds is stopped once, when both packs are in training."""
    methods = {name: SWEEP["methods"][name] for name in ("kd", "crd")}
    together, apart = benches(tmp_path, {**SWEEP, "methods": methods, "seeds": [0, 1]})
    cells = together.cells()
    try:
        assert together.train(teacher_run(together)) == 0
        apart.take(together, teacher_run(together))
        assert together.train(*(cell.run_id for cell in cells.values()), stop_after=7) == 0
        assert together.train(*(cell.run_id for cell in cells.values())) == 0
        for seed in (0, 1):
            assert apart.train(*(cells[name, seed].run_id for name in methods)) == 0
    finally:
        together.clean_up()
        apart.clean_up()
    for (method, _), cell in cells.items():
        row = together.row(cell.run_id)
        assert row["attempts"] == 2, "both packs had begun"
        assert_nearly_same(row, apart.row(cell.run_id), method)

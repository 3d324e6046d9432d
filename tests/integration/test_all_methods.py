"""Every method for classification trains, by the shipped quick sweeps through the real command."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness import rng
from harness.planning.plan import plan_sweep
from harness.spec.methods import builtin_names, describe_method
from harness.spec.science import Science
from harness.store import records
from harness.training.tasks import open_task
from tests.support.cli import REPO, run_command

HAS_CIFAR = (Path(os.environ.get("KD_DATA", "none")) / "cifar-100-python").is_dir()
EQUAL_WIDTHS = {"fsp", "pkd"}
QUICK = [  # sweep, methods that it leaves out
    ("all_methods_quick", set[str]()),
    pytest.param(
        "cifar100_all_methods_quick",
        EQUAL_WIDTHS,
        marks=pytest.mark.skipif(not HAS_CIFAR, reason="KD_DATA has no cifar-100-python"),
    ),
]
METHODS = {name for name in builtin_names() if "classification" in describe_method(name).defined_for}
FIRST = "conv1.weight"  # trained by every method, as the loss reaches it last


@pytest.mark.parametrize(("name", "left_out"), QUICK)
def test_every_method_moves_its_student_by_finite_losses_to_above_chance(
    name: str, left_out: set[str], tmp_path: Path
) -> None:
    file = REPO / "benchmarks" / f"{name}.yaml"
    result = run_command("sweep", file, "--max-parallel", 2, "--results", tmp_path)  # one thread each
    assert result.code == 0, result.err
    planned = plan_sweep(file, tmp_path)
    cells = {cell.run_id: cell.method for cell in planned.plan.cells}
    assert {planned.plan.runs[run_id].science.method.use for run_id in cells} == METHODS - left_out
    assert "kd_dot" in cells.values()
    rows = records.read_records(planned.store, cells).to_pylist()
    assert {row["run_id"] for row in rows} == set(cells)
    ends: dict[bytes, str] = {}
    for row in rows:
        method, science = cells[row["run_id"]], planned.plan.runs[row["run_id"]].science
        assert row["status"] == "done" and all(map(math.isfinite, numbers(row["curves"]))), method
        assert row["last_top1"] > 100 / science.dataset.info.classes, method
        end = first_weights(load_file(planned.store.student_weights(row["run_id"])))
        assert not torch.equal(end, first_weights(start(science))), f"{method} moved nothing"
        other = ends.setdefault(end.numpy().tobytes(), method)
        assert other == method, f"{method} trains as {other} does"


def numbers(value: Any) -> Iterator[float]:
    """Yield every number of nested lists and mappings."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, int | float):
        yield value


def start(science: Science) -> dict[str, torch.Tensor]:
    """Return the weights that a run's student starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.stream_key(science.seed, 0, f"student {science.student}"))
        return open_task(science.dataset, science.recipe).build(science.student).state_dict()


def first_weights(state: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the student's first convolution."""
    (weights,) = (tensor for name, tensor in state.items() if name.removeprefix("student.") == FIRST)
    return weights

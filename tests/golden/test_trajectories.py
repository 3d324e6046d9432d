"""Eight training steps of a wrn_16_2 under a wrn_40_2, step by step against the reference's own loop."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.models.base import describe
from harness.models.catalog import build
from methods.base import Batch, Distiller, SampleRandom
from methods.fitnets import FitNets
from methods.kd import KD
from tests.golden.filling import GOLDEN, fill

FOLDER = GOLDEN / "trajectory"
# What a file's `method` says -> our method, its weights there, and what the reference calls its module.
METHODS: dict[str, Any] = {
    "kd": lambda student, teacher, hyper: (
        KD(student, teacher, temperature=hyper["kd_T"]),
        {"ce": hyper["gamma"], "kd": hyper["alpha"]},
        {},
    ),
    "hint": lambda student, teacher, hyper: (
        method := FitNets(student, teacher, tap=f"stage{hyper['hint_layer']}"),
        {"ce": hyper["gamma"], "hint": hyper["beta"]},
        {"regress_s": method.regressor},
    ),
}
COLUMN = {"ce": "cls", "kd": "div", "hint": "kd"}  # our terms by the reference's names


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", METHODS)
def test_eight_steps(name: str, precision: str) -> None:
    if not (FOLDER / f"{name}.json").is_file():
        pytest.skip(f"no golden trajectories at {FOLDER} (set KD_GOLDEN)")
    golden = json.loads((FOLDER / f"{name}.json").read_text())
    hyper, tolerance, dtype = golden["hyper"], golden["tolerance"][precision], getattr(torch, precision)
    with np.load(FOLDER / "batches.npz") as file:
        images, targets = torch.from_numpy(file["images"]).to(dtype), torch.from_numpy(file["targets"])

    student, teacher = (build(golden[role], golden["num_classes"]) for role in ("student", "teacher"))
    specs = [describe(model, (3, 32, 32)) for model in (student, teacher)]
    method, weights, named_modules = METHODS[golden["method"]](*specs, hyper)
    modules: dict[str, nn.Module] = {"student": student, "teacher": teacher, **named_modules}
    for prefix, module in modules.items():
        fill(module, f"{prefix}.")
    assert_states(modules, golden["init"], rtol=1e-9)
    for module in (student, teacher, method):
        module.to(dtype)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps = train(student, teacher, method, weights, hyper["sgd"], images, targets)
    finally:
        torch.set_num_threads(threads)

    for i, (got, expected) in enumerate(zip(steps, golden[precision]["steps"], strict=True)):
        rtol = tolerance["total_rtol_by_step"][i]
        checked = got if precision == "float64" else {"total": got["total"]}  # float32 tolerances are the total's
        for key, value in checked.items():
            assert math.isclose(value, expected[key], rel_tol=rtol), f"step {i}: {key} {value}, not {expected[key]}"
    assert_states(modules, golden[precision]["final"], tolerance["final_l2_rtol"])
    assert_states(modules, {"teacher": golden["init"]["teacher"]}, rtol=1e-9)  # has not moved


def train(
    student: nn.Module,
    teacher: nn.Module,
    method: Distiller,
    weights: dict[str, float],
    sgd: dict[str, Any],
    images: torch.Tensor,
    targets: torch.Tensor,
) -> list[dict[str, float]]:
    """Each step's total and terms, by the reference's names, before its update."""
    student.train()
    method.train()
    teacher.eval()
    optimiser = torch.optim.SGD([*student.parameters(), *method.parameters()], **sgd)
    steps = []
    for step, (x, y) in enumerate(zip(images, targets, strict=True)):
        batch = Batch(x, y, torch.arange(len(y)), SampleRandom(step, len(y)))
        with torch.no_grad():
            from_teacher = teacher(x, taps=method.teacher_taps)
        from_student = student(x, taps=method.student_taps)
        terms = {"ce": F.cross_entropy(from_student.logits, y), **method(batch, from_student, from_teacher)}
        total = sum(weights[term] * value for term, value in terms.items())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        steps.append({"total": total.item()} | {COLUMN[term]: value.item() for term, value in terms.items()})
    return steps


def assert_states(modules: dict[str, nn.Module], golden: dict[str, Any], rtol: float) -> None:
    """Every tensor the golden file lists has its l2 norm, and its sum to the same accuracy relative to that norm."""
    for role, expected in golden.items():
        state = modules[role].state_dict()
        assert state.keys() == expected.keys()
        for key, value in state.items():
            l2, total = value.double().norm().item(), value.double().sum().item()
            assert math.isclose(l2, expected[key]["l2"], rel_tol=rtol), f"{role}.{key}: l2"
            slack = rtol * max(1.0, expected[key]["l2"]) * math.sqrt(max(1, value.numel()))
            assert math.isclose(total, expected[key]["sum"], abs_tol=slack), f"{role}.{key}: sum"

"""Compare eight training steps of wrn_40_2 -> wrn_16_2, one by one, with the reference's own loop."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.models.taps import describe_taps
from harness.models.zoo import build_model
from harness.training.member import Member
from harness.training.tasks.classification import Classification
from harness.training.teacher import Teacher
from methods.base import Batch, Outputs, SampleRandom
from tests.support.golden_weights import GOLDEN, SHARED, fill
from tests.support.sciences import make_science
from tests.support.steps import train_step

pytestmark = pytest.mark.slow

# KD_GOLDEN may name a folder of folders, or one of them: batches then lie beside it, or are the shared ones.
FOLDERS = (GOLDEN, *sorted(path for path in GOLDEN.glob("*") if path.is_dir()))
BATCHES = (*FOLDERS, GOLDEN.parent / "trajectory", SHARED / "trajectory")
# A golden file's `method` -> our method, its settings and loss weights, and the reference's names of its modules.
METHODS: dict[str, Any] = {
    "kd": lambda h: ("kd", {"temperature": h["kd_T"]}, {"ce": h["gamma"], "kd": h["alpha"]}, {}),
    "hint": lambda h: (
        "fitnets",
        {"tap": f"stage{h['hint_layer']}"},
        {"ce": h["gamma"], "hint": h["beta"]},
        {"regress_s": "regressor"},
    ),
    "dot": lambda h: ("kd", {"temperature": h["kd_T"]}, {"ce": h["ce_weight"], "kd": h["kd_weight"]}, {}),
}
PRECISIONS = {"kd.json": ("float32", "float64"), "hint.json": ("float32", "float64"), "DOT_*.json": ("float32",)}
FILES = [
    (file, precision)
    for pattern, precisions in PRECISIONS.items()
    for folder in FOLDERS
    for file in sorted(folder.glob(pattern))
    for precision in precisions
]
STAGES = {"stage1", "stage2", "stage3"}  # the maps of the teacher that some method reads
COLUMN = {"ce": "cls", "kd": "div", "hint": "kd", "total": "total"}  # our terms by the reference's names


@pytest.mark.skipif(not FILES, reason=f"no golden trajectories at {GOLDEN} (set KD_GOLDEN)")
@pytest.mark.parametrize(("file", "precision"), FILES, ids=[f"{file.stem}-{precision}" for file, precision in FILES])
def test_eight_steps(file: Path, precision: str) -> None:
    golden = json.loads(file.read_text())
    hyper, tolerance, dtype = golden["hyper"], golden["tolerance"][precision], getattr(torch, precision)
    with np.load(find_batches()) as arrays:
        images, targets = torch.from_numpy(arrays["images"]).to(dtype), torch.from_numpy(arrays["targets"])

    teacher = build_model(golden["teacher"], golden["num_classes"])
    spec = describe_taps(teacher, (3, 32, 32))
    use, params, weights, named = METHODS[golden["method"]](hyper)
    sgd = hyper["sgd"]
    recipe = {"epochs": 1, "lr": sgd["lr"], "momentum": sgd["momentum"], "weight_decay": sgd["weight_decay"]}
    recipe |= {"optimizer": "dot", "momentum_delta": hyper["delta"]} if golden["method"] == "dot" else {}
    science = make_science(golden["student"], use, params, weights, **recipe)
    trained_teacher = Teacher(teacher.eval(), golden["teacher"], Path(), "", 0.0, spec)
    task = Classification(golden["num_classes"], (3, 32, 32))
    member = Member(science, trained_teacher, targets.flatten(), task, torch.device("cpu"))
    modules = {"student": member.student, "teacher": teacher}
    modules |= {theirs: getattr(member.distiller, ours) for theirs, ours in named.items()}
    for prefix, module in modules.items():
        fill(module, f"{prefix}.")
    assert_states(modules, golden["init"], rtol=1e-9)
    for module in (member.student, member.distiller, teacher):
        module.to(dtype)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps = train(member, trained_teacher, images, targets)
    finally:
        torch.set_num_threads(threads)

    for i, (got, expected) in enumerate(zip(steps, golden[precision]["steps"], strict=True)):
        rtol = tolerance["total_rtol_by_step"][i]
        checked = got if precision == "float64" else {"total": got["total"]}  # float32 tolerances are the total's
        for key, value in checked.items():
            assert math.isclose(value, expected[key], rel_tol=rtol), f"step {i}: {key} {value}, not {expected[key]}"
    assert_states(modules, golden[precision]["final"], tolerance["final_l2_rtol"])
    assert_states(modules, {"teacher": golden["init"]["teacher"]}, rtol=1e-9)  # the tensor has not changed


def find_batches() -> Path:
    """Return the path of the images; without them the test is skipped."""
    if (folder := next((folder for folder in BATCHES if (folder / "batches.npz").is_file()), None)) is None:
        pytest.skip(f"no golden batches.npz at {GOLDEN} (set KD_GOLDEN)")
    return folder / "batches.npz"


def train(member: Member, teacher: Teacher, images: torch.Tensor, targets: torch.Tensor) -> list[dict[str, float]]:
    """Take the harness's own steps; return each one's total and terms before its update, by the reference's names."""
    steps = []
    member.begin_epoch()
    taps = set(member.distiller.teacher_taps)
    for i, (x, y) in enumerate(zip(images, targets, strict=True)):
        batch = Batch(x, y, torch.arange(len(y)), SampleRandom(i, len(y)))
        train_step(member, batch, teacher_outputs(teacher, x, i, taps))
        member.end_epoch()  # now the curves hold the terms of only this step
        epoch = member.history.epoch
        terms = {name.removeprefix("train_"): value for e, name, value in member.history.curves if e == epoch}
        steps.append({COLUMN[term]: value for term, value in terms.items()})
    return steps


_teacher_outputs: dict[tuple[str, torch.dtype, int], Outputs] = {}


def teacher_outputs(teacher: Teacher, images: torch.Tensor, step: int, taps: set[str]) -> Outputs:
    """Return a step's teacher outputs, computed once per teacher and precision."""
    key = teacher.name, images.dtype, step
    outputs = _teacher_outputs.get(key)
    if outputs is None:
        outputs = teacher(images, STAGES, "float32", len(images))
        _teacher_outputs[key] = outputs
    return replace(outputs, features={tap: outputs.features[tap] for tap in taps})


def assert_states(modules: dict[str, nn.Module], golden: dict[str, Any], rtol: float) -> None:
    """Assert every listed tensor's l2 norm, and its sum to the same accuracy relative to that norm."""
    for role, expected in golden.items():
        state = modules[role].state_dict()
        assert state.keys() == expected.keys()
        for key, value in state.items():
            l2, total = value.double().norm().item(), value.double().sum().item()
            assert math.isclose(l2, expected[key]["l2"], rel_tol=rtol), f"{role}.{key}: l2"
            slack = rtol * max(1.0, expected[key]["l2"]) * math.sqrt(max(1, value.numel()))
            assert math.isclose(total, expected[key]["sum"], abs_tol=slack), f"{role}.{key}: sum"

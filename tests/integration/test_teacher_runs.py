"""Chains, several teachers and early-stopped ones, trained through the command line."""

import json
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from harness.models.zoo import build_model
from harness.spec.sweep_plan import Cell
from tests.support.bench import SELDOM, USER_METHODS, Bench

W4, W8, W16 = (f"digits_net_w{width}" for width in (4, 8, 16))
SWEEP: dict[str, Any] = {
    "name": "small",
    "dataset": {"name": "digits", "train_subset": 40},
    "recipe": {"epochs": 2, "batch_size": 20, "lr": 0.05, "schedule": "cosine", "accumulate": 2},
    "methods": {
        "kd": {},
        "each": {"use": f"{USER_METHODS}:EachTeacher"},
        "bad": {"use": f"{USER_METHODS}:BreaksAtOnce"},
    },
    "pairs": [
        {"teacher": {"run": {"student": W8, "method": "kd"}}, "student": W4},
        {"teacher": W16, "student": W8},
        {"teacher": [W16, W8], "student": W4, "teacher_weights": [None, {"file": "w8.safetensors"}]},
        {"teacher": W16, "student": W4, "teacher_epoch": 1},
        {"teacher": {"run": {"student": W8, "method": "bad"}}, "student": W4},
    ],
    "seeds": 1,
}


@pytest.fixture
def chain(bench: Bench) -> Bench:
    bench.sweep, bench.checkpoint_seconds = json.loads(json.dumps(SWEEP)), SELDOM
    torch.manual_seed(0)
    save_file(build_model(W8, 10, in_channels=1).state_dict(), bench.folder / "w8.safetensors")
    return bench


def cells(bench: Bench) -> dict[tuple[str, str], Cell]:
    return {(cell.teacher, cell.method): cell for cell in bench.plan().plan.cells}


def test_chains_several_teachers_and_early_stopped_ones_train_and_fail(chain: Bench) -> None:
    result = chain.run("sweep", "--max-parallel", "1")
    assert result.returncode == 1, "some methods break"
    by_line = cells(chain)
    assistant, student = (chain.row(by_line[t, "kd"].run_id) for t in (W16, f"{W8} by kd"))
    assert (student["teacher"], student["teacher_run"]) == (W8, assistant["run_id"])
    assert student["teacher_sha256"] == assistant["weights_sha256"]
    assert student["teacher_top1"] == pytest.approx(assistant["last_top1"], abs=0.1)
    several = chain.row(by_line[f"{W16} + {W8}", "kd"].run_id)
    assert several["teacher"] == f"{W16} + {W8}" and several["teacher_run"] == assistant["teacher_run"]
    assert several["teacher_sha256"].count(" + ") == 1 and 0 <= several["teacher_top1"] <= 100

    early, last = (
        chain.row(by_line[f"{W16} after epoch 1", "kd"].teacher_run or ""),
        chain.row(assistant["teacher_run"]),
    )
    first_epoch = [curve for curve in last["curves"] if curve["epoch"] == 1]
    assert early["curves"] == first_epoch and len(last["curves"]) == 2 * len(first_epoch)
    assert (early["epochs"], early["best_epoch"], last["epochs"]) == (1, 1, 2)
    table = (chain.store.table_folder("small") / "paper.md").read_text()
    assert f"--only 'teacher={W8} by kd'" in table and f"whose logits are averaged: {W16} + {W8}" in table

    failure = chain.store.failure(by_line[f"{W8} by bad", "kd"].run_id)
    assert failure and failure.kind == "teacher"
    assert failure.cause == f"its teacher's run {by_line[W16, 'bad'].run_id} failed: ValueError: broken"
    states = json.loads(chain.call("sweep", "--plan", "--json").out)
    # One run of `bad` in each pack; all that learn from the one that is a teacher.
    assert (states["runs"], states["failed"], states["to_do"]) == (17, 7, 0)

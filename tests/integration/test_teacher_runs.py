"""Chains, several teachers and early-stopped ones, trained through the command line."""

import json
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from harness.models.zoo import build_model
from harness.spec.expand import Cell
from tests.support.bench import SELDOM, Bench

W4, W8, W16 = (f"digits_net_w{width}" for width in (4, 8, 16))
OWN = '''
from typing import ClassVar
import torch
from methods.base import Distiller

class Each(Distiller):
    """Learns from a map of the second of two teachers."""
    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "map": 1.0}
    several_teachers: ClassVar[bool] = True

    def __init__(self, student, teacher):
        super().__init__(student, teacher)
        self.teacher_taps = [tap for tap in teacher.names if tap == "1.stage1"]

    def forward(self, batch, student, teacher):
        if not self.teacher_taps:
            return {"map": student.logits.sum() * 0}
        first, second = teacher.teachers
        assert torch.equal(teacher.logits, (first.logits + second.logits) / 2) and not first.features
        assert torch.equal(teacher.features["1.stage1"], second.features["stage1"])
        assert len(second.logits) == len(batch.images) == 10, "micro-batches cut them too"
        return {"map": ((student.logits - second.logits) ** 2).mean()}

class Breaks(Distiller):
    weights: ClassVar[dict[str, float]] = {"ce": 1.0}

    def forward(self, batch, student, teacher):
        raise ValueError("broken")
'''
SWEEP: dict[str, Any] = {
    "name": "small",
    "dataset": {"name": "digits", "train_subset": 40},
    "recipe": {"epochs": 2, "batch_size": 20, "lr": 0.05, "schedule": "cosine", "accumulate": 2},
    "methods": {"kd": {}, "each": {"use": "own:Each"}},
    "pairs": [
        {"teacher": {"run": {"student": W8, "method": "kd"}}, "student": W4},
        {"teacher": W16, "student": W8},
        {"teacher": [W16, W8], "student": W4, "teacher_weights": [None, {"file": "w8.safetensors"}]},
        {"teacher": W16, "student": W4, "teacher_epoch": 1},
    ],
    "seeds": 1,
}


@pytest.fixture
def chain(bench: Bench) -> Bench:
    bench.sweep, bench.checkpoint_seconds = json.loads(json.dumps(SWEEP)), SELDOM
    (bench.folder / "own.py").write_text(OWN)
    torch.manual_seed(0)
    save_file(build_model(W8, 10, in_channels=1).state_dict(), bench.folder / "w8.safetensors")
    return bench


def cells(bench: Bench) -> dict[tuple[str, str], Cell]:
    return {(cell.teacher, cell.method): cell for cell in bench.plan().plan.cells}


def test_a_chain_two_teachers_and_an_early_stopped_one_train(chain: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain.folder)
    result = chain.run("sweep", "--max-parallel", "1", "--check")
    assert result.returncode == 0, result.stderr
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
    assert f"--only 'teacher={W8} by kd'" in table and f"by the mean of their logits: {W16} + {W8}" in table
    again = chain.call("sweep", "--plan", "--json")
    assert json.loads(again.out)["to_do"] == 0


def test_a_failed_assistant_fails_its_students_in_words(chain: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain.folder)
    chain.sweep["pairs"] = chain.sweep["pairs"][:2]
    chain.sweep["pairs"][0]["teacher"] = {"run": {"student": W8, "method": "bad"}}
    chain.sweep["methods"] = {"kd": {}, "bad": {"use": "own:Breaks"}}
    assert chain.run("sweep").returncode == 1
    states = chain.states()
    assistant = next(cell.run_id for cell in chain.plan().plan.cells if (cell.student, cell.method) == (W8, "bad"))
    assert states[f"{W16} > {W8} / kd / seed 0"]["state"] == "done"
    failure = chain.store.failure(cells(chain)[f"{W8} by bad", "kd"].run_id)
    assert failure and failure.kind == "teacher"
    assert failure.cause == f"its teacher's run {assistant} failed: ValueError: broken"

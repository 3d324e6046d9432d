"""Fine-tuning: what a classifier starts from, which of its parts stay, and what is refused in words."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.errors import UserError
from harness.models.checkpoints import WeightsError
from harness.models.initial_weights import load_initial_weights
from harness.models.zoo import build_model
from harness.spec import expand, sweep_file, sweep_plan, tasks
from harness.spec.pretrained import Place
from harness.spec.schema import Sweep
from harness.spec.science import Start
from harness.spec.yamlfile import Document
from harness.store import files
from harness.training.check import Checker
from harness.training.check_order import CheckOrder, RunToCheck, State
from harness.training.job_order import WeightsFile
from tests.support.packs import NET, train
from tests.support.sciences import make_science

FILE = {"file": "w.pth"}
CHECK_S = 60.0


def ours(classes: int) -> nn.Module:
    return build_model(NET, classes, in_channels=1)


def saved(model: nn.Module, folder: Path) -> tuple[dict[str, Tensor], Path]:
    state = {key: tensor + 1 if tensor.is_floating_point() else tensor for key, tensor in model.state_dict().items()}
    save_file(state, folder / "w.safetensors")
    return state, folder / "w.safetensors"


def test_a_last_layer_for_other_classes_starts_from_random_numbers(tmp_path: Path) -> None:
    state, file = saved(ours(5), tmp_path)
    model = ours(7)
    fresh = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    assert load_initial_weights(model, ours(8), NET, file) == (
        f"{NET} starts from weights {file}: not its last layer (fc), which starts from random numbers for 7 classes: "
        "the file's is for 5"
    )
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, fresh[key] if key.startswith("fc.") else state[key]), key


def test_a_last_layer_for_as_many_classes_is_taken(tmp_path: Path) -> None:
    state, file = saved(ours(7), tmp_path)
    model = ours(7)
    assert load_initial_weights(model, ours(8), NET, file).endswith("w.safetensors: its last layer (fc) too")
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


def test_a_file_without_a_last_layer_at_a_place_of_its_own(tmp_path: Path) -> None:
    state, _ = saved(ours(7), tmp_path)
    file = tmp_path / "checkpoint.pth"
    body = {f"backbone.{key}": tensor for key, tensor in state.items() if not key.startswith("fc.")}
    torch.save({"ema": body, "other": {key: tensor + 1 for key, tensor in body.items()}}, file)
    model = ours(7)
    note = load_initial_weights(model, ours(8), NET, file, place=Place("other", None))
    assert "random numbers for 7 classes: the file has none; taken from `other`" in note
    assert torch.equal(model.state_dict()["conv1.weight"], body["backbone.conv1.weight"] + 1)


def test_weights_of_another_model_are_refused_and_nothing_is_loaded(tmp_path: Path) -> None:
    _, file = saved(build_model("digits_net_w8", 5, in_channels=1), tmp_path)
    model = ours(7)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError, match=rf"not the weights of {NET}: .*bn1.bias is .* in the file"):
        load_initial_weights(model, ours(8), NET, file)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_frozen_parts_stay_as_they_start() -> None:
    parts = ("bn1", "layer1", "layer2.0.conv1")
    free, _ = train(["kd"], None)
    members, watcher = train(["kd"], None, freeze=parts, ema=0.5, weight_decay=0.1)
    assert not watcher.failures
    (member,), (free_member,) = members.values(), free.values()
    torch.manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        from harness import rng

        torch.manual_seed(rng.stream_key(member.seed, 0, f"student {NET}"))
        fresh = ours(10).state_dict()
    for key, tensor in member.student.state_dict().items():
        is_frozen = any(key.startswith(f"{part}.") for part in parts)
        assert torch.equal(tensor, fresh[key]) == is_frozen, key  # statistics of batch norms among them
        if is_frozen:
            assert torch.equal(member.evaluated_model.state_dict()[key], fresh[key])
            assert not torch.equal(free_member.student.state_dict()[key], fresh[key])
    frozen = {id(p) for p in member.student.parameters() if not p.requires_grad}
    assert frozen and not frozen & {id(p) for p in member.parameters}
    assert not member.student.get_submodule("layer1").training and member.student.get_submodule("layer2").training


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("layer3",), f"recipe.freeze: unknown part of {NET} 'layer3'; did you mean 'layer2'. Valid: bn1, conv1, fc, "),
        (("layer1.0.bn9",), "did you mean 'layer1.0.bn2'"),
        (("layer1.",), "unknown part"),
        (("layer",), "unknown part"),
        (("conv1", "bn1", "layer1", "layer2", "fc"), f"recipe.freeze: nothing of {NET} is left to train"),
    ],
)  # fmt: skip
def test_wrong_frozen_parts_are_refused(parts: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(["student"], None, freeze=parts)


def expanded(dataset: str, pair: dict[str, Any], **more: Any) -> sweep_plan.Plan:
    recipe = {"epochs": 2, "lr": 0.01}
    data = {"dataset": dataset, "recipe": recipe, "methods": ["student", "kd"], "pairs": [pair], "seeds": 1} | more
    document = Document("sweep.yaml", data, {})
    sweep = sweep_file.validate_model(Sweep, data, document)
    return expand.expand(sweep, document, tasks.DATASETS[dataset], lambda weights: weights.sha256 or "0" * 64)


def test_initial_weights_are_part_of_the_science() -> None:
    pair: dict[str, Any] = {"teacher": NET, "student": NET}
    start = {"file": "w.pth", "sha256": "ab" * 32}
    plan = expanded("digits", {**pair, "student_weights": start, "teacher_init": {**start, "key": "ema"}})
    of_teacher, *of_students = [run.science.initial_weights for run in plan.runs.values()]
    assert of_teacher == Start("ab" * 32, "ema") and of_students == [Start("ab" * 32)] * 2
    assert {key: source.key for key, source in plan.backbones.items()} == {
        of_teacher.weights_id: "ema",
        "ab" * 32: None,
    }
    assert plan.runs.keys().isdisjoint(expanded("digits", pair).runs)


def test_students_parts_are_not_frozen_in_their_teacher() -> None:
    recipe = {"epochs": 2, "lr": 0.01, "freeze": ["layer1"]}
    pair = {"teacher": NET, "student": NET}
    frozen = [r.science.recipe.freeze for r in expanded("digits", pair, recipe=recipe).runs.values()]
    assert frozen == [(), ("layer1",), ("layer1",)]
    own = {"recipe": {**recipe, "freeze": ["conv1"]}}
    assert [r.science.recipe.freeze for r in expanded("digits", pair, teachers=own).runs.values()][0] == ("conv1",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student_backbone": FILE}, "student_backbone: is for detection; digits is for classification: use `student"),
        ({"teacher_backbone": FILE}, "teacher_backbone: .*use `teacher_init`"),
        ({"teacher_init": FILE, "teacher_weights": FILE}, "teacher_init: is for teachers that the sweep trains"),
        ({"student_weights": "w.pth"}, r"write \{file: w.pth\}"),
    ],
)  # fmt: skip
def test_wrong_keys_of_pairs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        expanded("digits", {"teacher": NET, "student": NET} | changes)


@pytest.mark.parametrize("steps", [True, False])
def test_the_check_before_training_says_what_was_taken(steps: bool, tmp_path: Path) -> None:
    _, file = saved(ours(5), tmp_path)
    start = Start(files.sha256(file))
    order = CheckOrder([], {start.weights_id: WeightsFile(str(file))}, steps, CHECK_S, 1, "")
    result = Checker(order, tmp_path).check(RunToCheck(replace(make_science(NET), start=start).to_json(), 1))
    assert result.state == State.PASSED
    assert [note.partition(": ")[0] for note in result.notes] == [f"{NET} starts from weights {file}"]
    wrong = replace(make_science("digits_net_w8"), start=start).to_json()
    result = Checker(order, tmp_path).check(RunToCheck(wrong, 1))
    assert result.state == State.FAILED and result.cause.startswith(f"weights {file}: not the weights of digits_net_w8")

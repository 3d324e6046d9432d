"""Sweep files of detection, checked before anything runs."""

from typing import Any

import pytest

from harness.errors import UserError
from harness.spec import datasets, expand, sweep_file, sweep_plan, tasks
from harness.spec.schema import Sweep
from harness.spec.yamlfile import Document

INFO = datasets.prepared_dataset("coco", "0" * 16, 80, 1000, 100, 0)


def expanded(data: dict[str, Any]) -> sweep_plan.Plan:
    document = Document("sweep.yaml", data, {})
    sweep = sweep_file.validate_model(Sweep, data, document)
    info = INFO if sweep.dataset.name == INFO.name else tasks.DATASETS[sweep.dataset.name]
    return expand.expand(sweep, document, info, lambda weights: weights.sha256 or "0" * 64)


def detection(**changes: Any) -> dict[str, Any]:
    pair = {"teacher": "fasterrcnn_resnet50_fpn", "student": "fasterrcnn_resnet18_fpn"}
    data = {"dataset": "coco", "recipe": {"epochs": 2, "lr": 0.01}, "methods": ["kd"], "pairs": [pair], "seeds": 1}
    return data | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["crd"]}, "crd is defined only for classification, not for fasterrcnn_resnet50_fpn > .*; defined "
                               "for this pair: dkd, .*kd.*student"),
        ({"methods": ["kd"], "pairs": [{"teacher": "retinanet_resnet50_fpn", "student": "retinanet_resnet18_fpn"}]},
         "kd is defined only for classification and two_stage"),
        ({"pairs": [{"teacher": "resnet56", "student": "resnet20"}]},
         "resnet56 is for classification, dataset coco for detection: expected such as fasterrcnn_"),
        ({"dataset": "digits"}, "fasterrcnn_resnet50_fpn is for detection, dataset digits for classification"),
        ({"recipe": {"epochs": 2, "lr": 0.01, "image_size": 64}}, "image_size is for pixels of one size and stored "),
        ({"recipe": {"epochs": 2, "lr": 0.01, "crop_padding": 4}},
         "crop_padding is for pixels of one size; coco has images with objects"),
        ({"recipe": {"epochs": 2, "lr": 0.01, "sides": [900], "max_side": 800}}, "sides and eval_side must be"),
        ({"recipe": {"epochs": 2, "lr": 0.01, "label_smoothing": 0.1}}, "label_smoothing is for classification"),
        ({"recipe": {"epochs": 2, "lr": 0.01, "warmup_steps": 5, "warmup_epochs": 1}}, "exclude each other"),
        ({"dataset": {"name": "coco", "train_subset": 20_000}}, "train_subset must be at most 1000"),
        ({"pairs": [{"teacher": "fasterrcnn_resnet50_fpn", "student": "fasterrcnn_resnet18_fpn",
                     "student_weights": {"file": "w.pth"}}]},
         "student_weights: .*is for classification; coco is for detection: use `student_backbone`"),
    ],
)  # fmt: skip
def test_what_does_not_fit_detection_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        expanded(detection(**changes))


def test_a_backbone_is_part_of_the_science_of_what_starts_from_it() -> None:
    start = {"file": "r.pth", "sha256": "ab" * 32}
    pair = detection()["pairs"][0]
    plan = expanded(detection(pairs=[{**pair, "student_backbone": start}]))
    assert [r.science.backbone for r in plan.runs.values()] == [None, "ab" * 32]
    both = expanded(
        detection(pairs=[{**pair, "student_backbone": start, "teacher_backbone": {**start, "sha256": "cd" * 32}}])
    )
    assert [r.science.backbone for r in both.runs.values()] == ["cd" * 32, "ab" * 32]
    assert not set(plan.runs) & set(both.runs), "another teacher is another science"
    assert set(both.backbones) == {"ab" * 32, "cd" * 32}

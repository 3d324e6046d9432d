"""COCO's average precision on real objects, by two libraries and in one or two processes."""

import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.models.detection.base import Detections, Detector
from harness.models.detection.build import build_detector
from harness.spec.tasks.detection import TASK as DETECTION
from harness.training.distributed.ranks import join_ranks
from harness.training.tasks.detection_evaluation import as_results, coco_metrics, evaluate_detector
from tests.support import coco128
from tests.support.coco128 import needs_coco128
from tests.support.rank_processes import run_ranks
from tests.support.rendezvous import new_rendezvous

pytestmark = pytest.mark.slow

IMAGES = 5  # two processes cannot share them evenly
PROPOSALS = 60  # of each image: a detector's own 1,000 take long to read


def guesses(truth: dict[str, Any], seed: int = 0) -> list[dict[str, Any]]:
    """Return the detections of a middling detector: most objects, shifted, some twice, some in a wrong category."""
    rng = random.Random(seed)
    results = []
    for a in truth["annotations"]:
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            x, y, w, h = a["bbox"]
            box = [x + rng.gauss(0, 0.1) * w, y + rng.gauss(0, 0.1) * h, w * rng.uniform(0.8, 1.2), h]
            category = a["category_id"] if rng.random() < 0.8 else rng.choice(truth["categories"])["id"]
            box = [round(value, 2) for value in box]
            score = round(rng.random(), 5)
            results.append({"image_id": a["image_id"], "category_id": category, "bbox": box, "score": score})
    return results


@needs_coco128
def test_pycocotools_and_faster_coco_eval_agree() -> None:
    faster = pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
    truth = coco128.content()
    assert any(a["iscrowd"] for a in truth["annotations"])
    results = guesses(truth)
    ours = coco_metrics(truth, results)
    gt = faster.COCO(json.loads(json.dumps(truth)))
    theirs = faster.COCOeval_faster(gt, gt.loadRes([dict(r) for r in results]), "bbox", print_function=lambda *_: None)
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    assert list(ours.values()) == pytest.approx([100 * x for x in theirs.stats[:6]], abs=1e-9)
    assert 20 < ours["AP"] < ours["AP50"] < 90  # type: ignore[operator]


@needs_coco128
def test_all_found_is_100_and_nothing_found_is_0(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    truth = coco128.ground_truth(20)
    before = json.dumps(truth)
    keys = ("image_id", "category_id", "bbox")
    perfect = [{k: a[k] for k in keys} | {"score": 0.9} for a in truth["annotations"] if not a["iscrowd"]]
    assert coco_metrics(truth, perfect) == pytest.approx(dict.fromkeys(DETECTION.metrics, 100.0))
    assert coco_metrics(truth, []) == dict.fromkeys(DETECTION.metrics, 0.0)
    # an image without any detection counts too
    seen = truth["images"][0]["id"]
    assert coco_metrics(truth, [r for r in perfect if r["image_id"] == seen])["AP"] < 60  # type: ignore[operator]
    assert json.dumps(truth) == before and set(perfect[0]) == {*keys, "score"}
    file = tmp_path / "truth.json"
    file.write_text(before)
    assert coco_metrics(file, perfect) == coco_metrics(truth, perfect)
    assert capfd.readouterr() == ("", "")


@needs_coco128
def test_what_there_is_none_of_has_no_precision() -> None:
    truth = coco128.ground_truth(20)
    truth["annotations"] = [a for a in truth["annotations"] if a["area"] > 96**2]
    metrics = coco_metrics(truth, [])
    assert metrics == {"AP": 0, "AP50": 0, "AP75": 0, "APs": None, "APm": None, "APl": 0}
    assert set(coco_metrics({**truth, "annotations": []}, guesses(truth)).values()) == {None}


def test_boxes_are_in_pixels_of_the_file() -> None:
    boxes = torch.tensor([[10.0, 20, 30, 50], [0, 0, 128, 96]])
    detections = Detections(boxes, torch.tensor([0.9123456, 0.5]), torch.tensor([2, 1]))
    assert as_results(detections, (96, 128), (480, 640), 42, [1, 13]) == [
        {"image_id": 42, "category_id": 13, "bbox": [50.0, 100.0, 100.0, 150.0], "score": 0.91235},
        {"image_id": 42, "category_id": 1, "bbox": [0.0, 0.0, 640.0, 480.0], "score": 0.5},
    ]
    (result,) = as_results(Detections(boxes[:1], torch.ones(1), torch.ones(1).long()), (96, 128), (100, 101), 1, [1])
    assert result["bbox"] == [7.89, 20.83, 15.78, 31.25]


@dataclass
class FewImages:
    """The first images of coco128, one at a time."""

    count: int = IMAGES

    @property
    def annotations(self) -> dict[str, Any]:
        return coco128.ground_truth(self.count)

    def __len__(self) -> int:
        return self.count

    def batches(self, mine: slice) -> Iterator[tuple[Tensor, list[Any], list[Any], list[int]]]:
        for index in range(self.count)[mine]:
            images, (objects,) = coco128.batch([index], 64)
            image = coco128.content()["images"][index]
            yield images, [objects.size], [(image["height"], image["width"])], [image["id"]]


def detector() -> Detector:
    """Return an untrained detector."""
    torch.manual_seed(0)
    model: Any = build_detector("fasterrcnn_resnet18_fpn", 80, norm="batch")
    model.roi_heads.score_thresh = 0.015
    model.rpn._post_nms_top_n = {"training": PROPOSALS, "testing": PROPOSALS}
    return model.train()


def rank_main(rank: int, folder: Path, meeting: dict[str, str], world: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), **meeting}
    with join_ranks() as ranks:
        assert ranks.all_gather_json({"rank": rank, "text": "ä" * 10 * rank}) == [
            {"rank": r, "text": "ä" * 10 * r} for r in range(world)
        ]
        model = detector()
        evaluation = evaluate_detector(model, FewImages(), ranks=ranks)
        assert model.training
        (folder / f"{rank}of{world}.json").write_text(
            json.dumps([evaluation.metrics, json.loads(evaluation.predictions or "")])
        )


@needs_coco128
def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    for world in (1, 2):
        run_ranks(rank_main, (tmp_path, new_rendezvous(tmp_path), world), world)
    single, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("0of1", "0of2", "1of2"))
    assert first == second == single
    metrics, results = single
    assert list(metrics) == list(DETECTION.metrics)
    by_image = list(dict.fromkeys(r["image_id"] for r in results))
    assert by_image == [image["id"] for image in coco128.ground_truth(IMAGES)["images"]]
    assert len(results) == 100 * IMAGES


class Middling(nn.Module):
    """A detector that finds the objects of `FewImages` near their true places."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def detect(self, images: Tensor, sizes: list[tuple[int, int]]) -> list[Detections]:
        _, (objects,) = coco128.batch([self.seen], 64)
        self.seen += 1
        draws = torch.Generator().manual_seed(self.seen)
        boxes = objects.boxes + torch.randn(objects.boxes.shape, generator=draws)
        return [Detections(boxes, torch.rand(len(boxes), generator=draws), objects.labels)]


@needs_coco128
def test_the_stored_results_have_the_measured_precision() -> None:
    evaluation = evaluate_detector(Middling(), FewImages(2), "bf16")
    results = json.loads(evaluation.predictions or "")
    assert 5 < evaluation.metrics["AP"] < 95, "else any results would do"
    assert coco_metrics(coco128.ground_truth(2), results) == evaluation.metrics

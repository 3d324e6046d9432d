"""Detections of a detector in a set of images, and COCO's average precision of them, by pycocotools."""

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from harness.data.load.coco import CocoEvalSet
from harness.models.detection.base import Detections, Detector
from harness.spec.tasks.detection import TASK
from harness.training.distributed.ranks import ONE_RANK, Ranks
from harness.training.precision import autocast
from harness.training.tasks.base import Evaluated

Size = tuple[int, int]  # height, width


def evaluate_detector(
    model: Detector, on: CocoEvalSet, precision: str = "float32", ranks: Ranks = ONE_RANK
) -> Evaluated:
    """Evaluate a detector in eval mode, and leave it in the mode it was in.

    The images are split over the ranks. Each rank returns the same metrics and predictions: COCO's result file, with
    the images in order.
    """
    truth = on.annotations
    categories = [category["id"] for category in truth["categories"]]
    was_training = model.training
    model.eval()
    mine: list[dict[str, Any]] = []
    with torch.no_grad():
        for images, sizes, originals, image_ids in on.batches(ranks.rows(len(on))):
            with autocast(images.device, precision):
                detections = model.detect(images, sizes)
            for image in zip(detections, sizes, originals, image_ids, strict=True):
                mine += as_results(*image, categories)
    model.train(was_training)
    results = [result for part in ranks.all_gather_json(mine) for result in part]
    return Evaluated(coco_metrics(truth, results), (json.dumps(results, separators=(",", ":")) + "\n").encode())


def as_results(
    detections: Detections, size: Size, original: Size, image_id: int, categories: Sequence[int]
) -> list[dict[str, Any]]:
    """Return COCO's results of one image shown at ``size``, in pixels of its file.

    Numbers are rounded, boxes to a hundredth of a pixel, before metrics are computed, so that a file of them has the
    same metrics.
    """
    scale = torch.tensor([original[1] / size[1], original[0] / size[0]] * 2, dtype=torch.float64)
    boxes = detections.boxes.double().cpu() * scale
    boxes[:, 2:] -= boxes[:, :2]
    rows = zip(boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True)
    return [
        {
            "image_id": image_id,
            "category_id": categories[label - 1],
            "bbox": [round(x, 2) for x in box],
            "score": round(score, 5),
        }
        for box, score, label in rows
    ]


def coco_metrics(
    ground_truth: Mapping[str, Any] | Path, results: Sequence[Mapping[str, Any]]
) -> dict[str, float | None]:
    """Return COCO's metrics in %: average precision over IoU 0.50 to 0.95, at 0.50, at 0.75, and of small, medium and
    large objects.

    ``ground_truth`` is the content of an ``instances_*.json``, or the path of one; all its images count. ``results``
    are boxes in COCO's result format. Neither is changed.

    A metric is None when there are no such objects. An object without a result counts as missed: no results are 0.
    """
    from pycocotools.cocoeval import COCOeval

    content = json.loads(ground_truth.read_text()) if isinstance(ground_truth, Path) else ground_truth
    with contextlib.redirect_stdout(io.StringIO()):  # it prints tables and its progress
        truth = _indexed({**content, "annotations": [dict(a) for a in content["annotations"]]})
        nothing = _indexed({**truth.dataset, "annotations": []})  # its own reader of results fails on none
        detected = truth.loadRes([dict(r) for r in results]) if results else nothing
        evaluator = COCOeval(truth, detected, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    values = evaluator.stats[: len(TASK.metrics)].tolist()
    return {name: None if value == -1 else 100 * value for name, value in zip(TASK.metrics, values, strict=True)}


def _indexed(dataset: dict[str, Any]) -> Any:
    from pycocotools.coco import COCO

    index = COCO()
    index.dataset = dataset
    index.createIndex()
    return index

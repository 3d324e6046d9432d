"""What a detector finds in a whole set of images, and how good that is."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.models.detection.base import Detections, Detector
from harness.training.distributed.ranks import ONE_RANK, Ranks
from harness.training.precision import autocast
from harness.training.tasks.coco_metric import coco_metrics

Size = tuple[int, int]  # height, width


class DetectionEvalSet(Protocol):
    """Images that a detector is evaluated on."""

    @property
    def annotations(self) -> dict[str, Any]:
        """COCO's ground truth of these images; a label is the rank of its ``categories``, counted from 1."""

    def __len__(self) -> int: ...

    def batches(self, mine: slice) -> Iterator[tuple[Tensor, list[Size], list[Size], list[int]]]:
        """Images padded to multiples of 32, their sizes without padding, those of the files, and COCO's image ids; in
        file order, each of these images once."""


@dataclass(frozen=True)
class Evaluation:
    metrics: dict[str, float | None]  # as `coco_metrics` tells them, of these very results
    results: list[dict[str, Any]]  # COCO's result format, in the images' order


def evaluate_detector(
    model: Detector, on: DetectionEvalSet, precision: str = "float32", ranks: Ranks = ONE_RANK
) -> Evaluation:
    """Runs a detector in eval mode, and leaves it in the mode it was in. The processes share the images out; each gets
    the same answer."""
    truth = on.annotations
    categories = [category["id"] for category in truth["categories"]]
    was_training = model.training
    model.eval()
    mine: list[dict[str, Any]] = []
    with torch.no_grad():
        for images, sizes, originals, image_ids in on.batches(ranks.rows(len(on))):
            with autocast(images.device, precision):
                found = model.detect(images, sizes)
            for image in zip(found, sizes, originals, image_ids, strict=True):
                mine += as_results(*image, categories)
    model.train(was_training)
    results = [result for part in ranks.all_gather_json(mine) for result in part]
    return Evaluation(coco_metrics(truth, results), results)


def as_results(
    found: Detections, size: Size, original: Size, image_id: int, categories: Sequence[int]
) -> list[dict[str, Any]]:
    """COCO's results of one image shown at ``size``, in pixels of its file.

    Numbers are rounded, boxes to a hundredth of a pixel: a file of them says what the metrics are of.
    """
    scale = torch.tensor([original[1] / size[1], original[0] / size[0]] * 2, dtype=torch.float64)
    boxes = found.boxes.double().cpu() * scale
    boxes[:, 2:] -= boxes[:, :2]
    rows = zip(boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    return [
        {
            "image_id": image_id,
            "category_id": categories[label - 1],
            "bbox": [round(x, 2) for x in box],
            "score": round(score, 5),
        }
        for box, score, label in rows
    ]


def results_file(results: Sequence[dict[str, Any]]) -> bytes:
    """COCO's result file."""
    return (json.dumps(results, separators=(",", ":")) + "\n").encode()

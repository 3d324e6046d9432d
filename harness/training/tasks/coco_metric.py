"""COCO's average precision, by pycocotools."""

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# In %: over IoU 0.50 to 0.95; at 0.50; at 0.75; of small, medium and large objects.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def coco_metrics(
    ground_truth: Mapping[str, Any] | Path, results: Sequence[Mapping[str, Any]]
) -> dict[str, float | None]:
    """COCO's metrics of the boxes in ``results`` (COCO's result format) over all images of the ground truth (the
    content of an ``instances_*.json``, or the path of one), neither of which is changed.

    None: there are no such objects. An object that nothing was found for counts as missed: no results at all are 0.
    """
    from pycocotools.cocoeval import COCOeval

    content = json.loads(ground_truth.read_text()) if isinstance(ground_truth, Path) else ground_truth
    with contextlib.redirect_stdout(io.StringIO()):  # it prints tables and its progress
        truth = _indexed({**content, "annotations": [dict(a) for a in content["annotations"]]})
        # Its own reader of results fails on none.
        found = truth.loadRes([dict(r) for r in results]) if results else _indexed({**truth.dataset, "annotations": []})
        evaluator = COCOeval(truth, found, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    values = evaluator.stats[: len(METRICS)].tolist()
    return {name: None if value == -1 else 100 * value for name, value in zip(METRICS, values, strict=True)}


def _indexed(dataset: dict[str, Any]) -> Any:
    from pycocotools.coco import COCO

    found = COCO()
    found.dataset = dataset
    found.createIndex()
    return found

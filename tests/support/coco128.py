"""Real images with objects for detectors: the first ones of `coco128`, below KD_DATA."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from methods.detection import Objects

FOLDER = Path(os.environ.get("KD_DATA", "../shared/data")) / "coco128"
ANNOTATIONS = FOLDER / "annotations" / "instances_train2017.json"
needs_coco128 = pytest.mark.skipif(not ANNOTATIONS.is_file(), reason=f"needs {FOLDER} (KD_DATA)")
MEAN, STD = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


@cache
def content() -> dict[str, Any]:
    """Return COCO's ground truth for all images."""
    instances: dict[str, Any] = json.loads(ANNOTATIONS.read_text())
    return instances


def ground_truth(count: int) -> dict[str, Any]:
    """Return COCO's ground truth for the first ``count`` images only."""
    images = content()["images"][:count]
    ids = {image["id"] for image in images}
    annotations = [a for a in content()["annotations"] if a["image_id"] in ids]
    return {"images": images, "annotations": annotations, "categories": content()["categories"]}


def load_image(image: dict[str, Any], side: int) -> tuple[Tensor, Objects]:
    """Return an image (3, H, W) whose shorter side is ``side``, with its objects."""
    scale = side / min(image["height"], image["width"])
    width, height = (round(image[x] * scale) for x in ("width", "height"))
    with Image.open(FOLDER / "images" / "train2017" / image["file_name"]) as opened:
        pixels = np.asarray(opened.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    ranks = {category["id"]: rank for rank, category in enumerate(content()["categories"], 1)}
    annotations = [a for a in content()["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
    boxes = torch.tensor([a["bbox"] for a in annotations], dtype=torch.float32).view(-1, 4) * scale
    boxes[:, 2:] += boxes[:, :2]
    labels = torch.tensor([ranks[a["category_id"]] for a in annotations], dtype=torch.int64)
    normalised = (torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255 - MEAN) / STD
    return normalised, Objects(boxes, labels, (height, width))


def batch(indices: list[int], side: int) -> tuple[Tensor, list[Objects]]:
    """Return images (B, 3, H, W), padded as the loader pads them, and the objects of each."""
    samples = [load_image(content()["images"][index], side) for index in indices]
    height, width = (-(-max(x.shape[axis] for x, _ in samples) // 32) * 32 for axis in (1, 2))
    images = torch.zeros(len(samples), 3, height, width)
    for canvas, (image, _) in zip(images, samples, strict=True):
        canvas[:, : image.shape[1], : image.shape[2]] = image
    return images, [objects for _, objects in samples]

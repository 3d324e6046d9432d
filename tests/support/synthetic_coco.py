"""A small synthetic dataset in COCO's format, and a store with sweeps of detectors and of classifiers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from harness.planning.plan import Planned, plan_sweep
from harness.reporting import comparison
from harness.reporting.comparison import Comparison, Contents
from harness.store import records
from tests.support.cli import run_command
from tests.support.comparisons import SWEEP, row
from tests.support.images import save_image

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}]


def write_instances(path: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "categories": CATEGORIES, "annotations": annotations}))


HEIGHT, WIDTH = 60, 80
BOXES = {i: [4 * i, 5, 20 + i, 30] for i in range(6) if i != 2}  # x, y, width, height; image 2 shows nothing
OTHER = 777.0  # the value of the other task's metrics in the records, which nothing may read
PAIRS = (
    ("fasterrcnn_resnet101_fpn", "fasterrcnn_resnet50_fpn"),
    ("fasterrcnn_resnet101_fpn", "fasterrcnn_resnet18_fpn"),
)
APS = {"student": (31.0, 32.0), "kd": (33.0, 34.25), "fgfi": (35.0, 36.5)}  # by seed
TEACHER = {"AP": 41.0, "AP50": 61.0, "AP75": 44.0, "APs": 21.0, "APm": 42.0, "APl": 52.0}
DETECTORS: dict[str, Any] = {
    "name": "detectors",
    "dataset": "coco",
    "recipe": {"epochs": 3, "lr": 0.01},
    "methods": list(APS),
    "pairs": [{"teacher": teacher, "student": student} for teacher, student in PAIRS],
    "seeds": 2,
}


def prepare(folder: Path) -> None:
    """Prepare ``folder/coco``: six images to train on and six to evaluate on. All but one show a white rectangle,
    a cat (category 3)."""
    for part, first in (("train", 0), ("val", 100)):
        for i in range(6):
            pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            if i in BOXES:
                x, y, width, height = BOXES[i]
                pixels[y : y + height, x : x + width] = 255
            save_image(folder / f"source/{part}/{i}.jpg", Image.fromarray(pixels))
        images = [{"id": first + i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH} for i in range(6)]
        objects = [{"image_id": first + i, "category_id": 3, "bbox": box} for i, box in BOXES.items()]
        write_instances(folder / f"source/annotations/instances_{part}.json", images, objects)
    assert run_command("prepare", "coco", "--source", folder / "source", "--out", folder / "coco").code == 0


def metrics(prefix: str, AP: float) -> dict[str, float]:
    """Return a detector's metrics, all different, so that a table that confuses them is noticed."""
    return {f"{prefix}_{name}": AP + 5 * i for i, name in enumerate(TEACHER)}


def plan(sweep: dict[str, Any], results: Path = Path("results")) -> Planned:
    file = Path(f"{sweep['name']}.yaml")
    file.write_text(yaml.safe_dump(sweep, sort_keys=False))
    return plan_sweep(file, results, Path.cwd())


def record(planned: Planned, **facts: Any) -> None:
    """Write records for all runs of a plan."""
    cells = {cell.run_id: cell for cell in planned.plan.cells}
    detectors = planned.plan.sweep.dataset.name == "coco"
    for run in planned.plan.runs.values():
        cell = cells.get(run.run_id)
        columns = {"science": run.science.text, "versions": "{}", "processes": 1, "seed": 0}
        columns |= {"dataset": run.science.dataset.name, "train_size": 5, "evaluated_size": 6, **facts}
        if detectors:
            ap = APS[cell.method][cell.seed] if cell else TEACHER["AP"]
            columns |= metrics("last", ap) | metrics("best", ap + 0.5)
            columns |= {f"teacher_{name}": value for name, value in TEACHER.items()}
            columns["teacher_top1"] = OTHER
        columns["seed"] = cell.seed if cell else 0
        top1 = OTHER if detectors else 60.0 + (cell.seed if cell else 0)
        records.write_record(planned.store, row(run.run_id, top1, top1, **columns))


def compare(planned: Planned) -> Comparison:
    return next(comparison.load_comparisons([Contents.of(planned.name, planned.plan)], planned.store))


def both() -> tuple[Planned, Planned]:
    """Plan sweeps of detectors and of classifiers and write their records to one store in the working directory."""
    prepare(Path())
    detectors, classifiers = plan(DETECTORS), plan(SWEEP)
    record(detectors)
    record(classifiers)
    return detectors, classifiers

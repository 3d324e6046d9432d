"""Detection: objects in images, as boxes with a class each."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from harness.spec.recipe import Closed, GeneralKeys, Percent, PerMethod
from harness.spec.tasks.base import DatasetInfo, Images, Keys, Preparation, TaskInfo

Side = Annotated[int, Field(ge=32, le=4096)]  # pixels
SampleSize = Annotated[int, Field(ge=2, le=4096)]
TWO_STAGE = "two_stage"  # detectors that classify regions


@dataclass(frozen=True)
class DetectorEntry:
    """A feature pyramid over a classifier, and Faster R-CNN (two stages) or RetinaNet (one) over that."""

    backbone: str  # torchvision's name of the classifier
    two_stage: bool
    channels: int = 256  # of each map of the pyramid
    hidden: int = 1024  # width of the hidden layers that classify a region, in two stages


DETECTORS: dict[str, DetectorEntry] = {
    **{f"fasterrcnn_{body}_fpn": DetectorEntry(body, True)
       for body in ("resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2")},
    **{f"retinanet_{body}_fpn": DetectorEntry(body, False) for body in ("resnet18", "resnet50", "resnet101")},
    # A quarter as wide behind the classifier: for trials on a CPU, in no paper.
    **{f"fasterrcnn_{body}_fpn64": DetectorEntry(body, True, 64, 256)
       for body in ("resnet18", "resnet34", "mobilenet_v2")},
}  # fmt: skip


class RecipeKeys(GeneralKeys):
    sides: tuple[Side, ...] | None = Field(
        None,
        min_length=1,
        description="detection only: lengths in pixels, one of which is drawn for each image's shorter side "
        "(default 800)",
    )
    max_side: int | None = Field(
        None, ge=32, le=8192, description="detection only: maximum length of an image's longer side (default 1333)"
    )
    eval_side: Side | None = Field(
        None, description="detection only: length of an image's shorter side in evaluation (default 800)"
    )
    norm: PerMethod[Literal["frozen", "batch"] | None] = Field(
        None,
        description="detection only: `frozen` batch norms of the backbone stay as they are loaded, `batch` ones are "
        "trained (default `frozen`)",
    )
    frozen_stages: PerMethod[int | None] = Field(
        None,
        ge=0,
        le=5,
        description="detection only: how many of the backbone's stem and four stages, in this order, are not trained "
        "(default 0)",
    )
    anchors_per_image: SampleSize | None = Field(
        None, description="detection only: anchors sampled per image to train the proposals (default 256)"
    )
    rois_per_image: SampleSize | None = Field(
        None, description="detection only: regions sampled per image to train classes and boxes (default 512)"
    )


class StatedScore(Closed):
    AP: Percent | None = Field(
        None, ge=0, le=100, description="for a detector: the AP in % that it should have, checked in the same way"
    )


def _check_sides(recipe: Keys) -> None:
    if max(*recipe["sides"], recipe["eval_side"]) > recipe["max_side"]:
        raise ValueError(f"sides and eval_side must be at most max_side, {recipe['max_side']}")


OBJECTS = Images(
    "images with objects",
    "harness.data.load.coco:CocoSource",
    {"sides": [800], "max_side": 1333, "eval_side": 800},
    size_keys=("eval_side",),
    check=_check_sides,
)
_AP = ("AP", "AP50", "AP75", "APs", "APm", "APl")
TASK = TaskInfo(
    "detection",
    "harness.training.tasks.detection",
    metrics=_AP,
    printed=_AP,
    loss="detector's own loss",
    images=(OBJECTS,),
    models={name: ("detection", TWO_STAGE) if entry.two_stage else ("detection",) for name, entry in DETECTORS.items()},
    examples=tuple(DETECTORS)[:3],
    models_note="Detectors are built from torchvision's modules. The numbers are for 80 classes, an image of "
    "3x800x1344 and, in two stages, 512 regions.",
    # How detectors are built and trained.
    recipe={"norm": "frozen", "frozen_stages": 0, "anchors_per_image": 256, "rois_per_image": 512},
    backbones=True,
    pictures="harness.reporting.figures.detections",
)
DATASETS = (
    DatasetInfo(
        "coco",
        TASK,
        OBJECTS,
        preparation=Preparation(
            "harness.data.prepare.coco:prepare_coco",
            "harness.data.coco_manifest:CocoManifest",
            ("train", "val", "name"),
        ),
        official_test_size=5_000,
        few_published=True,
        all_published=True,
    ),
)

"""What is known of every detector before it is built; imports no torch, so that planning can use it."""

import difflib
from dataclasses import dataclass

from harness.errors import shorten


@dataclass(frozen=True)
class DetectorEntry:
    """A feature pyramid over a classifier, and Faster R-CNN (two stages) or RetinaNet (one) over that."""

    backbone: str  # torchvision's name of the classifier
    two_stage: bool
    channels: int = 256  # of each map of the pyramid
    hidden: int = 1024  # width of what a region is read by, in two stages


CATALOG: dict[str, DetectorEntry] = {
    **{f"fasterrcnn_{body}_fpn": DetectorEntry(body, True)
       for body in ("resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2")},
    **{f"retinanet_{body}_fpn": DetectorEntry(body, False) for body in ("resnet18", "resnet50", "resnet101")},
    # A quarter as wide behind the classifier: for trials on a CPU, in no paper.
    **{f"fasterrcnn_{body}_fpn64": DetectorEntry(body, True, 64, 256) for body in ("resnet18", "resnet34")},
}  # fmt: skip


def resolve_detector(name: str) -> str:
    """Raises:
    ValueError: there is no such detector; the message gives the nearest names.
    """
    if name not in CATALOG:
        near = difflib.get_close_matches(name[:200], CATALOG) or list(CATALOG)
        raise ValueError(f"no detector named {shorten(name)}; nearest: {', '.join(near)}")
    return name

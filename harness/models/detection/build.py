"""The detectors by name, built."""

from typing import Literal

from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from harness.models.detection.backbone import build_backbone
from harness.models.detection.base import Detector
from harness.models.detection.one_stage import OneStageDetector
from harness.models.detection.two_stage import TwoStageDetector
from harness.spec.tasks.detection import DETECTORS


def build_detector(
    name: str,
    num_classes: int,
    *,
    norm: Literal["frozen", "batch"] = "frozen",
    frozen_stages: int = 0,
    anchors_per_image: int = 256,
    rois_per_image: int = 512,
) -> Detector:
    """Return a freshly initialised detector, drawn from torch's global random generator.

    ``num_classes`` leaves the background out. For ``norm`` and ``frozen_stages`` see ``build_backbone``. A one-stage
    detector learns from all anchors.
    """
    entry = DETECTORS[name]
    if entry.two_stage:
        backbone = build_backbone(entry.backbone, entry.channels, 1, norm, frozen_stages, LastLevelMaxPool())
        return TwoStageDetector(backbone, entry.hidden, num_classes, anchors_per_image, rois_per_image)
    last = LastLevelP6P7(entry.channels, entry.channels)
    backbone = build_backbone(entry.backbone, entry.channels, 2, norm, frozen_stages, last)
    return OneStageDetector(backbone, num_classes)

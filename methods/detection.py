"""What a method is given of detectors, beside what every task has.

A sample of a method that reads logits is a region of interest (RoI) then: ``Batch.targets``, ``Outputs.logits`` and
``Outputs.embedding`` have a row for each RoI that the student was trained on in this step, for both models alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from methods.base import Batch, Outputs


@dataclass(frozen=True)
class Objects:
    """What one image shows, in pixels of the image as the models are given it."""

    boxes: Tensor  # (N, 4) float32: x1, y1, x2, y2; N may be 0
    labels: Tensor  # (N,) int64: 1 to the number of classes; 0 is the background
    size: tuple[int, int]  # height and width; what the batch has beyond them is padding, on the right and below


@dataclass
class DetectionBatch(Batch):
    """A process's own share of a batch: its terms are means over these images."""

    objects: Sequence[Objects] = ()  # of each image


@dataclass
class DetectorOutputs(Outputs):
    """What a detector returns for images. Of a one-stage detector the logits and the embedding have no rows."""

    rois: list[Tensor] = field(default_factory=list)  # of each image (R_i, 4): those that were sampled for training
    anchors: dict[str, Tensor] = field(default_factory=dict)  # FPN level -> (H, W, A, 4), alike for all images
    # Of a detector with two stages: logits (R, classes + 1) and embedding (R, D) of each image's RoIs (R_i, 4), from
    # the pyramid's maps of the images.
    read: Callable[[Mapping[str, Tensor], Sequence[Tensor]], tuple[Tensor, Tensor]] | None = None

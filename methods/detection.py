"""The inputs of a method for detectors.

A method that reads logits sees regions of interest (RoIs) as samples: ``Batch.targets``, ``Outputs.logits`` and
``Outputs.embedding`` have a row for each RoI that the student was trained on in this step, the same for both models.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from methods.base import Batch, Outputs


@dataclass(frozen=True)
class Objects:
    """The objects in one image, in pixels of the image that the models see."""

    boxes: Tensor  # (N, 4) float32: x1, y1, x2, y2; N may be 0
    labels: Tensor  # (N,) int64: 1 to the number of classes; 0 is the background
    size: tuple[int, int]  # height and width; the batch is padded on the right and below


@dataclass
class DetectionBatch(Batch):
    """One rank's shard of a batch: terms are means over its images."""

    objects: Sequence[Objects] = ()  # one per image


@dataclass
class DetectorOutputs(Outputs):
    """A detector's outputs for images. A one-stage detector's logits and embedding have no rows."""

    rois: list[Tensor] = field(default_factory=list)  # per image (R_i, 4): those that were sampled for training
    anchors: dict[str, Tensor] = field(default_factory=dict)  # FPN level -> (H, W, A, 4), the same for all images
    # For a two-stage detector: a function of the pyramid's maps and the images' RoIs (R_i, 4) that returns the RoIs'
    # logits (R, classes + 1) and embedding (R, D).
    read: Callable[[Mapping[str, Tensor], Sequence[Tensor]], tuple[Tensor, Tensor]] | None = None

"""RetinaNet. Lin et al. 2017, arXiv:1708.02002."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNetHead

from harness.models.detection.anchors import in_one, place_anchors
from harness.models.detection.base import Detections, Detector, TrainingOutputs, pyramid
from harness.models.detection.losses import upcast
from methods.detection import Objects


class OneStageDetector(Detector, RetinaNet):
    """torchvision's; it learns from all anchors, so that nothing is drawn. Its losses: class, box."""

    anchor_generator: AnchorGenerator
    head: RetinaNetHead
    compute_loss: Callable[..., dict[str, Tensor]]
    postprocess_detections: Callable[..., list[dict[str, Tensor]]]
    tap_names = ("stage2", "stage3", "stage4", "p3", "p4", "p5", "p6", "p7")

    def __init__(self, backbone: BackboneWithFPN, num_classes: int):
        RetinaNet.__init__(self, backbone, num_classes, detections_per_img=100)
        self.num_classes, self.renormalisation = num_classes, None

    @property
    def anchor_source(self) -> AnchorGenerator:
        return self.anchor_generator

    def learn(
        self, levels: dict[str, Tensor], anchors: dict[str, Tensor], objects: Sequence[Objects], seeds: Sequence[int]
    ) -> TrainingOutputs:
        predictions = self._predict(levels)
        # Its head has no background, and so counts classes from 0 on.
        targets = [{"boxes": o.boxes, "labels": o.labels - 1} for o in objects]
        losses = self.compute_loss(targets, predictions, [in_one(anchors)] * len(objects))
        logits, embedding = self.no_rois(predictions["cls_logits"])
        return TrainingOutputs(
            logits, embedding,
            losses={"class": losses["classification"], "box": losses["bbox_regression"]},
            targets=objects[0].labels.new_empty(0),
        )  # fmt: skip

    def read(self, maps: Mapping[str, Tensor], rois: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return self.no_rois(next(iter(maps.values())))

    def detect(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        levels = pyramid(self.maps(images))
        anchors = [grid.view(-1, 4) for grid in place_anchors(self.anchor_source, images.shape[-2:], levels).values()]
        by_level = {name: x.split([len(a) for a in anchors], dim=1) for name, x in self._predict(levels).items()}
        detections = self.postprocess_detections(by_level, [anchors] * len(sizes), sizes)
        return [Detections(image["boxes"], image["scores"], image["labels"] + 1) for image in detections]

    def _predict(self, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        """Class logits (B, N, classes) and offsets (B, N, 4) of all anchors, by torchvision's names."""
        return {name: upcast(x) for name, x in self.head(list(levels.values())).items()}

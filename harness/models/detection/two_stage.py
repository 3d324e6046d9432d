"""Faster R-CNN. Ren et al. 2015, arXiv:1506.01497."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers
from torchvision.ops.poolers import initLevelMapper

from harness.models.detection.anchors import in_one, place_anchors
from harness.models.detection.base import Detections, Detector, TrainingOutputs, pyramid
from harness.models.detection.losses import box_loss, mean_over_images, upcast
from harness.models.detection.sampling import generator, sample
from methods.detection import Objects

POOLED_SIZE = 7  # height and width of what is read of a RoI
POOLED = {"p2": "0", "p3": "1", "p4": "2", "p5": "3"}  # what RoIs are read from, and torchvision's names for it


class TwoStageDetector(Detector, FasterRCNN):
    """torchvision's modules and weights' names; what it does between them is done here, image by image.

    Its losses are torchvision's, and so are its detections: rpn_objectness, rpn_box, roi_class, roi_box.
    """

    rpn: RegionProposalNetwork
    roi_heads: RoIHeads
    tap_names = ("stage1", "stage2", "stage3", "stage4", "p2", "p3", "p4", "p5", "p6")

    def __init__(
        self, backbone: BackboneWithFPN, hidden: int, num_classes: int, anchors_per_image: int, rois_per_image: int
    ):
        head = TwoMLPHead(backbone.out_channels * POOLED_SIZE**2, hidden)
        FasterRCNN.__init__(self, backbone, box_head=head, box_predictor=FastRCNNPredictor(hidden, num_classes + 1))
        self.num_classes, self.renormalisation = num_classes, None
        self._anchors_per_image, self._rois_per_image = anchors_per_image, rois_per_image
        # Else the first batch's sizes would say once and for all what the maps' strides are.
        self.roi_heads.box_roi_pool.scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
        self.roi_heads.box_roi_pool.map_levels = initLevelMapper(2, 5, canonical_scale=224, canonical_level=4)

    @property
    def embedding_dim(self) -> int:
        return self.roi_heads.box_predictor.cls_score.in_features

    @property
    def anchor_source(self) -> AnchorGenerator:
        return self.rpn.anchor_generator

    def learn(
        self, levels: dict[str, Tensor], anchors: dict[str, Tensor], objects: Sequence[Objects], seeds: Sequence[int]
    ) -> TrainingOutputs:
        every = in_one(anchors)
        objectness, offsets, proposals = self._propose(levels, every, [o.size for o in objects])
        draws = [generator(seed, every.device) for seed in seeds]
        first = mean_over_images([
            self._first_stage_losses(*image, every) for image in zip(objectness, offsets, objects, draws, strict=True)
        ])  # fmt: skip
        samples = [self._draw_rois(*image) for image in zip(proposals, objects, draws, strict=True)]
        rois, targets, boxes = (list(parts) for parts in zip(*samples, strict=True))
        logits, embedding, offsets = self._read(levels, rois)
        counts = [len(r) for r in rois]
        second = mean_over_images([
            self._second_stage_losses(*image)
            for image in zip(logits.split(counts), offsets.split(counts), rois, targets, boxes, strict=True)
        ])  # fmt: skip
        return TrainingOutputs(logits, embedding, rois=rois, losses=first | second, targets=torch.cat(targets))

    def read(self, maps: Mapping[str, Tensor], rois: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        logits, embedding, _ = self._read(maps, rois)
        return logits, embedding

    def detect(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        levels = pyramid(self.maps(images))
        anchors = place_anchors(self.anchor_source, images.shape[-2:], levels)
        _, _, proposals = self._propose(levels, in_one(anchors), sizes)
        logits, _, offsets = self._read(levels, proposals)
        detections = self.roi_heads.postprocess_detections(logits, offsets, proposals, sizes)
        return [Detections(*image) for image in zip(*detections, strict=True)]

    def _propose(
        self, levels: dict[str, Tensor], anchors: Tensor, sizes: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Objectness logits (B, N) and offsets (B, N, 4) of the anchors, and each image's proposals (P_i, 4)."""
        by_level = self.rpn.head(list(levels.values()))
        counts = [x[0].numel() for x in by_level[0]]
        objectness, offsets = (upcast(x) for x in concat_box_prediction_layers(*by_level))
        boxes = self.rpn.box_coder.decode(offsets.detach(), [anchors] * len(sizes))
        proposals, _ = self.rpn.filter_proposals(boxes.view(len(sizes), -1, 4), objectness, sizes, counts)
        return objectness.view(len(sizes), -1), offsets.view(len(sizes), -1, 4), proposals

    def _first_stage_losses(
        self, objectness: Tensor, offsets: Tensor, objects: Objects, draws: torch.Generator, anchors: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of some of one image's anchors: whether there is an object (N,), and where (N, 4)."""
        rpn = self.rpn
        (labels,), (boxes,) = rpn.assign_targets_to_anchors([anchors], [{"boxes": objects.boxes}])
        chosen = sample(labels, self._anchors_per_image, rpn.fg_bg_sampler.positive_fraction, draws)
        positive = chosen[labels[chosen] > 0]
        logits, classes = objectness[chosen], labels[chosen].to(objectness.dtype)
        box_targets = rpn.box_coder.encode_single(boxes[positive], anchors[positive])
        return {
            "rpn_objectness": F.binary_cross_entropy_with_logits(logits, classes, reduction="sum")
            / max(1, len(chosen)),
            "rpn_box": box_loss(offsets[positive], box_targets, len(chosen)),
        }

    def _draw_rois(self, proposals: Tensor, objects: Objects, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """RoIs (R, 4) of one image, from its proposals and its objects' own boxes, their labels (R,), and the boxes
        (R, 4) that they should have been (where there is an object)."""
        boxes = objects.boxes.to(proposals.dtype)
        proposals = torch.cat([proposals, boxes])
        (matched,), (labels,) = self.roi_heads.assign_targets_to_proposals([proposals], [boxes], [objects.labels])
        chosen = sample(labels, self._rois_per_image, self.roi_heads.fg_bg_sampler.positive_fraction, draws)
        rois, labels = proposals[chosen], labels[chosen]
        return rois, labels, boxes[matched[chosen]] if len(boxes) else rois

    def _second_stage_losses(
        self, logits: Tensor, offsets: Tensor, rois: Tensor, targets: Tensor, boxes: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of one image's RoIs: their class, and where it is."""
        positive = torch.where(targets > 0)[0]
        predicted = offsets.view(len(offsets), -1, 4)[positive, targets[positive]]
        box_targets = self.roi_heads.box_coder.encode_single(boxes[positive], rois[positive])
        return {
            "roi_class": F.cross_entropy(logits, targets, reduction="sum") / max(1, len(targets)),
            "roi_box": box_loss(predicted, box_targets, len(targets)),
        }

    def _read(self, maps: Mapping[str, Tensor], rois: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (R, classes + 1), embedding (R, D) and offsets (R, 4 x (classes + 1)) of all images' RoIs."""
        heads = self.roi_heads
        pooled = heads.box_roi_pool({name: maps[tap] for tap, name in POOLED.items()}, list(rois), [])
        embedding = heads.box_head(pooled)
        logits, offsets = heads.box_predictor(embedding)
        return upcast(logits), embedding, upcast(offsets)

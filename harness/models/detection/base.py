"""The interface of every detector."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from harness.models.detection.anchors import place_anchors
from harness.models.renormalisation import Renormalisation
from harness.models.taps import check_taps
from methods.base import TapSpec
from methods.detection import DetectorOutputs, Objects

# Height and width of the usual training image in its padding: the map sizes are stated for it.
NOMINAL_SIZE = (800, 1344)


@dataclass(kw_only=True)
class TrainingOutputs(DetectorOutputs):
    """The outputs of a detector for images and their objects."""

    losses: dict[str, Tensor]  # scalars by name, each the mean of the images' own
    targets: Tensor  # (R,) int64: the labels of all images' RoIs


@dataclass(frozen=True)
class Detections:
    """The objects that a detector finds in one image, the surest first."""

    boxes: Tensor  # (N, 4): x1, y1, x2, y2 in pixels of the image as the detector was given it
    scores: Tensor  # (N,) in [0, 1]
    labels: Tensor  # (N,) int64, from 1 on


class Detector(nn.Module):
    """A detector whose maps can be read by name.

    The maps are ``stage1``, ... of its classifier and ``p2``, ... of the pyramid, numbered by log2 of the stride.
    Images (B, 3, H, W) are normalised, and padded on the right and below; H and W are multiples of 32. The output for
    an image depends on H and W, and on nothing else of the batch.
    """

    tap_names: tuple[str, ...]
    num_classes: int  # without the background
    backbone: BackboneWithFPN
    renormalisation: Renormalisation | None  # of the images, where the weights expect another

    def forward(
        self,
        images: Tensor,
        taps: Collection[str] = (),
        objects: Sequence[Objects] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> DetectorOutputs:
        """Return maps and anchors; with the images' ``objects``, in train mode, also the rest of ``TrainingOutputs``.

        ``seeds``: one per image, from which its anchors and RoIs are drawn.

        Raises:
            ValueError: an unknown tap.
        """
        check_taps(taps, self.tap_names)
        maps = self.maps(images)
        levels = pyramid(maps)
        anchors = place_anchors(self.anchor_source, images.shape[-2:], levels)
        features = {tap: maps[tap] for tap in taps}
        if objects is None:
            logits, embedding = self.no_rois(images)
            return DetectorOutputs(logits, embedding, features, anchors=anchors, read=self.read)
        assert seeds is not None
        return replace(self.learn(levels, anchors, objects, seeds), features=features, anchors=anchors)

    def learn(
        self, levels: dict[str, Tensor], anchors: dict[str, Tensor], objects: Sequence[Objects], seeds: Sequence[int]
    ) -> TrainingOutputs:
        """Return losses, RoIs and what is predicted for them, without features."""
        raise NotImplementedError

    def read(self, maps: Mapping[str, Tensor], rois: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (R, classes + 1) and embedding (R, D) of each image's RoIs (R_i, 4), given the pyramid's maps of the
        images; a one-stage detector says nothing of RoIs, so that R is 0."""
        raise NotImplementedError

    def detect(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """Return at most 100 objects in each image; in eval mode. ``sizes``: height and width without the padding."""
        raise NotImplementedError

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return every map by its tap."""
        if self.renormalisation is not None:  # the padding is 0 in any normalisation; no pixel's value is
            images = torch.where(images == 0, images, self.renormalisation(images))
        stages = self.backbone.body(images)
        maps = [*stages.values(), *self.backbone.fpn(stages).values()]
        return dict(zip(self.tap_names, maps, strict=True))

    def describe(self) -> TapSpec:
        """Return what the detector offers a method; sizes are those for ``NOMINAL_SIZE``."""
        stages = [block[0].in_channels for block in self.backbone.fpn.inner_blocks]
        levels = [self.backbone.out_channels] * (len(self.tap_names) - len(stages))
        channels = dict(zip(self.tap_names, [*stages, *levels], strict=True))
        strides = {tap: 2 ** (int(tap[-1]) + tap.startswith("stage")) for tap in self.tap_names}
        height, width = NOMINAL_SIZE
        return TapSpec(
            channels,
            {tap: (-(-height // stride), -(-width // stride)) for tap, stride in strides.items()},
            embedding_dim=self.embedding_dim,
            num_classes=self.num_classes + 1,
            pooled=False,
        )

    @property
    def embedding_dim(self) -> int:
        """Width of an RoI's embedding; 0 where there are none."""
        return 0

    def no_rois(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and embedding without rows."""
        return like.new_empty(0, self.num_classes + 1), like.new_empty(0, self.embedding_dim)

    @property
    def anchor_source(self) -> AnchorGenerator:
        raise NotImplementedError


def pyramid(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the pyramid's maps."""
    return {tap: x for tap, x in maps.items() if tap.startswith("p")}

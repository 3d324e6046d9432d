"""A detector's backbone: a classifier's stages and a feature pyramid (FPN) above them.

Lin et al. 2017, arXiv:1612.03144.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torchvision.models import get_model
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from harness.models.frozen_norm import FrozenBatchNorm


@dataclass(frozen=True)
class Body:
    """The modules of torchvision's classifier below a pyramid: its stem and four stages, whose strides are 4 to 32."""

    stages: tuple[tuple[str, ...], ...]  # modules of the stem and of each stage, the stage's map being the last one's
    prefix: str  # of their names in the classifier's state dict
    rest: tuple[str, ...]  # how names of what the detector does without begin there


_RESNET = Body((("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)), "", ("fc.",))
# 24, 32, 96 and 320 channels: each stage's last block (3, 6, 13, 17), as detectron2's users take them, not its first as
# torchvision's `mobilenet_backbone` does. The 1x1 convolution to 1280 channels is left out.
_MOBILENET_V2 = Body(
    tuple(tuple(map(str, range(*ends))) for ends in ((0, 2), (2, 4), (4, 7), (7, 14), (14, 18))),
    "features.",
    ("features.18.", "classifier."),
)
_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
BODIES = {**dict.fromkeys(_RESNETS, _RESNET), "mobilenet_v2": _MOBILENET_V2}


def build_backbone(
    name: str, width: int, first_stage: int, norm: str, frozen_stages: int, extra_levels: nn.Module
) -> BackboneWithFPN:
    """Build torchvision's ``BackboneWithFPN`` over the stages from ``first_stage`` on, freshly initialised; ``width``:
    the channels of the pyramid's maps.

    ``norm``: "batch", or "frozen" for batch norms that stay as they are loaded. ``frozen_stages``: of the stem and the
    stages, how many are not trained at all (detectron2's ``FREEZE_AT``); their batch norms are frozen too.
    """
    body = BODIES[name]
    net = get_model(name, norm_layer=FrozenBatchNorm if norm == "frozen" else nn.BatchNorm2d)
    if body is _MOBILENET_V2:
        net = net.features
        channels = [net[int(stage[-1])].out_channels for stage in body.stages[first_stage:]]
    else:
        channels = [net.inplanes // 2 ** (4 - stage) for stage in range(first_stage, 5)]
    maps = {stage[-1]: str(index) for index, stage in enumerate(body.stages[first_stage:])}
    backbone = BackboneWithFPN(net, maps, channels, width, extra_levels)
    _tell_folds(backbone.body)
    for stage in body.stages[:frozen_stages]:
        _freeze(backbone.body, stage)
    return backbone


def _freeze(body: nn.Module, names: Sequence[str]) -> None:
    for path, module in list(body.named_modules()):
        if path.split(".")[0] in names:
            module.requires_grad_(False)
            if isinstance(module, nn.BatchNorm2d):
                parent, _, child = path.rpartition(".")
                setattr(body.get_submodule(parent), child, FrozenBatchNorm(module.num_features, module.eps))


def _tell_folds(body: nn.Module) -> None:
    """Name the convolutions of a ResNet that can take its batch norms in, see ``fold_batch_norms``."""
    for module in body.modules():
        children = dict(module.named_children())
        if norms := [name for name in children if name in ("bn1", "bn2", "bn3")]:
            module.folds = tuple((name.replace("bn", "conv"), name) for name in norms)  # type: ignore[assignment]

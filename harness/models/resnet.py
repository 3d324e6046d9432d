"""ResNets for small images: He et al. 2016, arXiv:1512.03385, section 4.2. The x4 widths: CRD, arXiv:1910.10699."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.taps import ReluBlock, ReluStages, build_stage, conv1x1, conv3x3, init_convs, stage_taps


class BasicBlock(ReluBlock):
    folds = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(conv1x1(in_channels, channels, stride), nn.BatchNorm2d(channels))

    def preact(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return out


class ResNet(ReluStages):
    """A stem of `widths[0]` channels, then one stage of `blocks` basic blocks for each further width.

    Each stage after the first halves the image; the first one divides it by `first_stride`.
    """

    folds = (("conv1", "bn1"),)
    linear_name = "fc"

    def __init__(self, blocks: int, widths: tuple[int, ...], num_classes: int, in_channels: int, first_stride: int = 1):
        super().__init__()
        self.conv1 = conv3x3(in_channels, widths[0])
        self.bn1 = nn.BatchNorm2d(widths[0])
        for i, (in_channels, channels) in enumerate(pairwise(widths), start=1):
            stage = build_stage(BasicBlock, in_channels, channels, blocks, stride=first_stride if i == 1 else 2)
            self.add_module(f"layer{i}", stage)
        self.fc = nn.Linear(widths[-1], num_classes)
        self.tap_names = stage_taps(len(widths) - 1)
        init_convs(self)


def resnet(depth: int, num_classes: int, in_channels: int, widths: tuple[int, ...] = (16, 16, 32, 64)) -> ResNet:
    """Return the CIFAR ResNet of `depth` = 6n + 2 layers."""
    return ResNet((depth - 2) // 6, widths, num_classes, in_channels)

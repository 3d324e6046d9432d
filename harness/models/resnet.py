"""ResNets for small images: He et al. 2016, arXiv:1512.03385, section 4.2. The x4 widths: CRD, arXiv:1910.10699."""

import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.taps import ConvNet, ReluBlock, Taps, conv1x1, conv3x3, init_convs, run_stage, stage_taps


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


class ResNet(ConvNet):
    """A stem of `widths[0]` channels, then one stage of `blocks` basic blocks for each further width.

    Each stage after the first halves the image; the first one divides it by `first_stride`.
    """

    folds = (("conv1", "bn1"),)

    def __init__(self, blocks: int, widths: tuple[int, ...], num_classes: int, in_channels: int, first_stride: int = 1):
        super().__init__()
        self.conv1 = conv3x3(in_channels, widths[0])
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages = range(1, len(widths))
        for i in self.stages:
            first = BasicBlock(widths[i - 1], widths[i], stride=first_stride if i == 1 else 2)
            rest = (BasicBlock(widths[i], widths[i], stride=1) for _ in range(blocks - 1))
            self.add_module(f"layer{i}", nn.Sequential(first, *rest))
        self.fc = nn.Linear(widths[-1], num_classes)
        self.tap_names = stage_taps(len(self.stages))
        init_convs(self)

    def run(self, images: Tensor, taps: Taps) -> tuple[Tensor, Tensor]:
        x = taps("stem", F.relu(self.bn1(self.conv1(images)), inplace=True))
        for i in self.stages:
            x = run_stage(f"stage{i}", self.get_submodule(f"layer{i}").children(), x, taps)
        embedding = x.mean((2, 3))
        return embedding, self.fc(embedding)


def resnet(depth: int, num_classes: int, in_channels: int, widths: tuple[int, ...] = (16, 16, 32, 64)) -> ResNet:
    """Return the CIFAR ResNet of `depth` = 6n + 2 layers."""
    return ResNet((depth - 2) // 6, widths, num_classes, in_channels)

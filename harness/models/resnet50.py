"""ResNet-50 (He et al. 2016, arXiv:1512.03385) with a 3x3 stride-1 stem and no max pooling, for 32x32 images."""

import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.taps import ReluBlock, ReluStages, build_stage, conv1x1, conv3x3, init_convs, stage_taps

EXPANSION = 4  # a bottleneck's output channels per inner channel


class Bottleneck(ReluBlock):
    folds = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        channels = out_channels // EXPANSION
        self.conv1 = conv1x1(in_channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = conv1x1(channels, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))

    def preact(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out += x if self.shortcut is None else self.shortcut(x)
        return out


class ResNet50(ReluStages):
    folds = (("conv1", "bn1"),)
    tap_names = stage_taps(4)

    def __init__(self, num_classes: int, in_channels: int):
        super().__init__()
        self.conv1 = conv3x3(in_channels, 64)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = build_stage(Bottleneck, 64, 256, blocks=3, stride=1)
        self.layer2 = build_stage(Bottleneck, 256, 512, blocks=4, stride=2)
        self.layer3 = build_stage(Bottleneck, 512, 1024, blocks=6, stride=2)
        self.layer4 = build_stage(Bottleneck, 1024, 2048, blocks=3, stride=2)
        self.linear = nn.Linear(2048, num_classes)
        init_convs(self)

"""ResNet-50 (He et al. 2016, arXiv:1512.03385) with a 3x3 stride-1 stem and no max pooling, for 32x32 images."""

import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.taps import ConvNet, ReluBlock, Taps, conv1x1, conv3x3, init_convs, run_stage, stage_taps

EXPANSION = 4  # a bottleneck's output channels per inner channel


class Bottleneck(ReluBlock):
    folds = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        out_channels = EXPANSION * channels
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


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(in_channels, channels, stride)
    return nn.Sequential(first, *(Bottleneck(EXPANSION * channels, channels, 1) for _ in range(blocks - 1)))


class ResNet50(ConvNet):
    folds = (("conv1", "bn1"),)
    tap_names = stage_taps(4)

    def __init__(self, num_classes: int, in_channels: int):
        super().__init__()
        self.conv1 = conv3x3(in_channels, 64)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, blocks=3, stride=1)
        self.layer2 = _stage(256, 128, blocks=4, stride=2)
        self.layer3 = _stage(512, 256, blocks=6, stride=2)
        self.layer4 = _stage(1024, 512, blocks=3, stride=2)
        self.linear = nn.Linear(2048, num_classes)
        init_convs(self)

    def run(self, images: Tensor, taps: Taps) -> tuple[Tensor, Tensor]:
        x = taps("stem", F.relu(self.bn1(self.conv1(images)), inplace=True))
        for i, layer in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), start=1):
            x = run_stage(f"stage{i}", layer, x, taps)
        embedding = x.mean((2, 3))
        return embedding, self.linear(embedding)

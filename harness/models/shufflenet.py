"""ShuffleNets with a 1x1 stem, for 32x32 images: Zhang et al. 2018, arXiv:1707.01083; Ma et al., arXiv:1807.11164."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.taps import ConvNet, ReluBlock, ReluStages, Taps, build_stage, conv1x1, depthwise3x3, stage_taps

STEM = 24  # channels
GROUPS = 3  # of V1


class GroupedBottleneck(ReluBlock):
    """A ShuffleNet unit. At stride 2 its channels are appended to the pooled input, at stride 1 added to the input."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.stride = stride
        new = channels - in_channels if stride == 2 else channels
        inner = new // 4
        self.groups = 1 if in_channels == STEM else GROUPS  # the stem has too few channels to be split
        self.conv1 = conv1x1(in_channels, inner, groups=self.groups)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = depthwise3x3(inner, stride)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv1x1(inner, new, groups=GROUPS)
        self.bn3 = nn.BatchNorm2d(new)

    def preact(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = torch.channel_shuffle(out, self.groups)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        if self.stride == 2:
            return torch.cat([out, F.avg_pool2d(x, 3, stride=2, padding=1)], 1)
        out += x
        return out


class ShuffleV1(ReluStages):
    """ShuffleNet (V1), three groups."""

    tap_names = stage_taps(3)

    def __init__(self, num_classes: int, in_channels: int):
        super().__init__()
        self.conv1 = conv1x1(in_channels, STEM)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1 = build_stage(GroupedBottleneck, STEM, 240, blocks=4, stride=2)
        self.layer2 = build_stage(GroupedBottleneck, 240, 480, blocks=8, stride=2)
        self.layer3 = build_stage(GroupedBottleneck, 480, 960, blocks=4, stride=2)
        self.linear = nn.Linear(960, num_classes)


class SplitBlock(nn.Module):
    """ShuffleNetV2 unit of stride 1: half of the channels pass unchanged."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.conv1 = conv1x1(half, half)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = depthwise3x3(half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv1x1(half, half)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map before the last ReLU and the channel shuffle."""
        left, right = x.chunk(2, 1)
        right = F.relu(self.bn1(self.conv1(right)), inplace=True)
        right = self.bn2(self.conv2(right))
        right = self.bn3(self.conv3(right))
        return torch.cat([left, right], 1)


class DownBlock(nn.Module):
    """ShuffleNetV2 unit of stride 2: both halves are computed from the whole input."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        half = channels // 2
        self.conv1 = depthwise3x3(in_channels, 2)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = conv1x1(in_channels, half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv1x1(in_channels, half)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = depthwise3x3(half, 2)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv1x1(half, half)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map before the last ReLU and the channel shuffle."""
        left = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        right = F.relu(self.bn3(self.conv3(x)), inplace=True)
        right = self.bn5(self.conv5(self.bn4(self.conv4(right))))
        return torch.cat([left, right], 1)


def _stage_v2(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(DownBlock(in_channels, channels), *(SplitBlock(channels) for _ in range(blocks - 1)))


class ShuffleV2(ConvNet):
    """ShuffleNetV2, 1x. ``stage*`` is ``ReLU(stage*.preact)`` with its channels shuffled.

    ``head.map`` is the map of the last convolution, whose mean the classifier reads.
    """

    tap_names = (*stage_taps(3), "head.map")

    def __init__(self, num_classes: int, in_channels: int):
        super().__init__()
        self.conv1 = conv1x1(in_channels, STEM)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1 = _stage_v2(STEM, 116, blocks=4)
        self.layer2 = _stage_v2(116, 232, blocks=8)
        self.layer3 = _stage_v2(232, 464, blocks=4)
        self.conv2 = conv1x1(464, 1024)
        self.bn2 = nn.BatchNorm2d(1024)
        self.linear = nn.Linear(1024, num_classes)

    def run(self, images: Tensor, taps: Taps) -> tuple[Tensor, Tensor]:
        x = taps("stem", F.relu(self.bn1(self.conv1(images)), inplace=True))
        for i, layer in enumerate((self.layer1, self.layer2, self.layer3), start=1):
            *first, last = layer
            for block in first:
                x = torch.channel_shuffle(F.relu(block(x), inplace=True), 2)
            x = torch.channel_shuffle(taps.relu(f"stage{i}.preact", last(x)), 2)
            taps(f"stage{i}", x)
        x = taps("head.map", F.relu(self.bn2(self.conv2(x)), inplace=True))
        embedding = x.mean((2, 3))
        return embedding, self.linear(embedding)

"""MobileNetV2 at half width, for 32x32 images: Sandler et al. 2018, arXiv:1801.04381."""

from functools import partial

from torch import Tensor, nn

from harness.models.taps import ConvNet, Taps, build_stage, conv1x1, conv3x3, depthwise3x3, init_convs, init_linear

# expansion, output channels at half width, blocks, stride of the first one
STAGES = ((1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2), (6, 160, 1, 1))
TAPS = {1: "stage1", 2: "stage2", 4: "stage3", 6: "stage4"}  # index in STAGES -> tap


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, linear bottleneck. The expansion is there even where its ratio is 1."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int):
        super().__init__()
        inner = expansion * in_channels
        self.has_shortcut = stride == 1 and in_channels == channels
        self.conv = nn.Sequential(
            conv1x1(in_channels, inner),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            depthwise3x3(inner, stride),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            conv1x1(inner, channels),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        if self.has_shortcut:
            out += x
        return out


class MobileNetV2(ConvNet):
    """Its stages end in linear bottlenecks: ``stage*.preact`` is the same map as ``stage*``.

    ``head.map`` is the map of the last convolution, whose mean the classifier reads.
    """

    tap_names = ("stem", *(name for tap in TAPS.values() for name in (f"{tap}.preact", tap)), "head.map")

    def __init__(self, num_classes: int, in_channels: int):
        super().__init__()
        self.conv1 = nn.Sequential(conv3x3(in_channels, 16, stride=2), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        width, stages = 16, []
        for expansion, channels, blocks, stride in STAGES:
            block = partial(InvertedResidual, expansion=expansion)
            stages.append(build_stage(block, width, channels, blocks, stride))
            width = channels
        self.blocks = nn.Sequential(*stages)
        self.conv2 = nn.Sequential(conv1x1(width, 1280), nn.BatchNorm2d(1280), nn.ReLU(inplace=True))
        head = nn.Linear(1280, num_classes)
        self.classifier = nn.Sequential(head)
        init_convs(self)
        init_linear(head)

    def run(self, images: Tensor, taps: Taps) -> tuple[Tensor, Tensor]:
        x = taps("stem", self.conv1(images))
        for i, stage in enumerate(self.blocks):
            x = stage(x)
            if i in TAPS:
                taps(TAPS[i], taps(f"{TAPS[i]}.preact", x))
        embedding = taps("head.map", self.conv2(x)).mean((2, 3))
        return embedding, self.classifier(embedding)

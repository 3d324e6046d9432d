"""Wide residual networks: Zagoruyko and Komodakis 2016, arXiv:1605.07146, without dropout."""

import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.taps import ConvNet, Taps, build_stage, conv1x1, conv3x3, init_convs


class PreactBlock(nn.Module):
    folds = (("conv1", "bn2"),)

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        # Checkpoints know this spelling. The shortcut is a convolution only where the number of channels changes.
        self.convShortcut = None if in_channels == channels else conv1x1(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x, F.relu(self.bn1(x), inplace=True))

    def residual(self, x: Tensor, active: Tensor) -> Tensor:
        """Return the block's output; `active` is ReLU(bn1(x))."""
        out = self.conv2(F.relu(self.bn2(self.conv1(active)), inplace=True))
        out += x if self.convShortcut is None else self.convShortcut(active)
        return out


class Stage(nn.Module):
    def __init__(self, in_channels: int, channels: int, blocks: int, stride: int):
        super().__init__()
        self.layer = build_stage(PreactBlock, in_channels, channels, blocks, stride)


class WideResNet(ConvNet):
    """Depth 6n + 4; three stages of n blocks with 16, 32 and 64 times `width` channels.

    Taps ``stem`` and ``stage*`` are sums that no batch norm or ReLU has seen. ``stage*.preact`` is what the next
    stage's first batch norm (the final one, for the last stage) makes of them.
    """

    tap_names = ("stem", "stage1", "stage1.preact", "stage2", "stage2.preact", "stage3", "stage3.preact")

    def __init__(self, depth: int, width: int, num_classes: int, in_channels: int):
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = conv3x3(in_channels, 16)
        self.block1 = Stage(16, 16 * width, blocks, stride=1)
        self.block2 = Stage(16 * width, 32 * width, blocks, stride=2)
        self.block3 = Stage(32 * width, 64 * width, blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, num_classes)
        init_convs(self)
        nn.init.zeros_(self.fc.bias)

    def run(self, images: Tensor, taps: Taps) -> tuple[Tensor, Tensor]:
        name, x = "stem", taps("stem", self.conv1(images))
        for i, stage in enumerate((self.block1, self.block2, self.block3), start=1):
            first, *rest = stage.layer
            assert isinstance(first, PreactBlock)
            x = first.residual(x, taps.relu(f"{name}.preact", first.bn1(x)))
            for block in rest:
                x = block(x)
            name = f"stage{i}"
            taps(name, x)
        x = taps.relu(f"{name}.preact", self.bn1(x))
        embedding = x.mean((2, 3))
        return embedding, self.fc(embedding)

"""VGG with batch norm and one linear layer, for small images: Simonyan and Zisserman 2015, arXiv:1409.1556."""

import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.taps import ConvNet, Taps, init_convs, init_linear, stage_taps

WIDTHS = (64, 128, 256, 512, 512)


def _block(in_channels: int, channels: int, convs: int) -> nn.Sequential:
    """Return `convs` times convolution (with bias), batch norm, ReLU, without the last ReLU."""
    layers: list[nn.Module] = []
    for i in range(convs):
        conv = nn.Conv2d(channels if i else in_channels, channels, 3, padding=1)
        layers += [conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


class VGG(ConvNet):
    """Five blocks of `convs` convolutions, the first one being the stem. Taps are read before pooling."""

    tap_names = stage_taps(4)

    def __init__(self, convs: tuple[int, int, int, int, int], num_classes: int, in_channels: int):
        super().__init__()
        self.block0 = _block(in_channels, WIDTHS[0], convs[0])
        self.block1 = _block(WIDTHS[0], WIDTHS[1], convs[1])
        self.block2 = _block(WIDTHS[1], WIDTHS[2], convs[2])
        self.block3 = _block(WIDTHS[2], WIDTHS[3], convs[3])
        self.block4 = _block(WIDTHS[3], WIDTHS[4], convs[4])
        self.classifier = nn.Linear(WIDTHS[4], num_classes)
        init_convs(self)
        init_linear(self.classifier)

    def run(self, images: Tensor, taps: Taps) -> tuple[Tensor, Tensor]:
        x = taps("stem", F.relu(self.block0(images), inplace=True))
        for i, block in enumerate((self.block1, self.block2, self.block3, self.block4), start=1):
            if x.shape[2] > 4:  # a 32x32 image is not pooled again before the last block, a 64x64 one is
                x = F.max_pool2d(x, 2)
            name = f"stage{i}"
            x = taps(name, taps.relu(f"{name}.preact", block(x)))
        embedding = x.mean((2, 3))
        return embedding, self.classifier(embedding)

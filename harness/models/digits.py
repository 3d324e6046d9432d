"""Small residual networks for scikit-learn's 8x8 grey digits; one core trains them in seconds."""

from harness.models.resnet import ResNet


def digits_net(width: int, num_classes: int, in_channels: int) -> ResNet:
    """Return a ResNet with one block per stage.

    It has `width` / 2 channels at 8x8, then `width` at 4x4 and 2 `width` at 2x2.
    """
    return ResNet(1, (width // 2, width, 2 * width), num_classes, in_channels, first_stride=2)

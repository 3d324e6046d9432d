"""Small residual networks for scikit-learn's 8x8 grey digits; one core trains them in seconds."""

from harness.models.resnet import ResNet


def digits_net(width: int, num_classes: int, in_channels: int) -> ResNet:
    """Stem and first stage of `width` / 2 channels at 8x8, second stage of `width` channels at 4x4."""
    return ResNet(1, (width // 2, width // 2, width), num_classes, in_channels)

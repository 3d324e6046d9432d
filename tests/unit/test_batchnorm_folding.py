"""Batch norms folded into convolutions: the outputs at every tap are equal up to rounding."""

import pytest
import torch
from torch import nn

from harness.models.batchnorm_folding import fold_batch_norms
from harness.models.zoo import build_model
from harness.spec.models import CATALOG


@pytest.mark.parametrize(
    ("name", "left"),
    [("wrn_16_2", 7), ("resnet8", 0), ("resnet8x4", 0), ("ResNet50", 0), ("vgg8", 0), ("MobileNetV2", 0),
     ("digits_net_w8", 0), ("ShuffleV2", None)],
)  # fmt: skip
def test_same_outputs(name: str, left: int | None) -> None:
    torch.manual_seed(0)
    shape = CATALOG[name].image_shape
    model = build_model(name, 10, in_channels=shape[0]).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as training leaves them: not the identity
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    images = torch.randn(2, *shape)
    with torch.no_grad():
        before = model(images, model.tap_names)
        fold_batch_norms(model)
        after = model(images, model.tap_names)
    for tap in model.tap_names:
        scale = before.features[tap].abs().max()
        torch.testing.assert_close(after.features[tap] / scale, before.features[tap] / scale, rtol=0, atol=1e-5)
    torch.testing.assert_close(after.logits, before.logits, rtol=1e-4, atol=1e-4 * before.logits.abs().max().item())
    if left is not None:
        assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == left

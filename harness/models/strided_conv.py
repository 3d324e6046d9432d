"""Strided 1x1 convolutions of few channels, computed so that their gradients are right on every CPU."""

import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 8  # channels that oneDNN's AVX2 kernels work on at a time


class SubsampledConv(nn.Conv2d):
    """A strided 1x1 convolution that first drops the positions it would skip; its values are the same."""

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.stride
        return F.conv2d(x[:, :, ::rows, ::columns], self.weight, self.bias, groups=self.groups)


def subsample_before_narrow_convs(model: nn.Module) -> None:
    """Replace the strided 1x1 convolutions of a model that have fewer than 8 input channels.

    oneDNN 3.12 (torch 2.14.1) computes wrong weight gradients for them in channels-last layout on CPUs that have AVX2
    but not AVX-512, and writes outside of its buffer.
    """
    for module in model.modules():
        if (
            type(module) is nn.Conv2d
            and module.kernel_size == (1, 1)
            and max(module.stride) > 1
            and module.padding == (0, 0)
            and module.in_channels < BLOCK
        ):
            module.__class__ = SubsampledConv

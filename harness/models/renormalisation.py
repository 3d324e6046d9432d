"""Renormalisation of images, for weights that were trained with another mean and std than the dataset's."""

import torch
from torch import Tensor, nn

from harness.spec.normalisation import Normalisation


class Renormalisation(nn.Module):
    """The change of images (B, C, H, W) from one normalisation to another; the result differs by rounding from pixels
    that were normalised so at once.

    It stands before a network rather than in its first convolution, whose zero padding would become another value.
    """

    def __init__(self, present: Normalisation, wanted: Normalisation):
        super().__init__()
        pairs = list(zip(present.mean, present.std, wanted.mean, wanted.std, strict=True))
        scale = torch.tensor([std / wanted_std for _, std, _, wanted_std in pairs])
        shift = torch.tensor([(mean - wanted_mean) / wanted_std for mean, _, wanted_mean, wanted_std in pairs])
        self.register_buffer("scale", scale[None, :, None, None], persistent=False)
        self.register_buffer("shift", shift[None, :, None, None], persistent=False)
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale + self.shift

"""Heads from a stage of a student to logits: convolutions for maps, transformer blocks for tokens."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_MERGED_GRID = 7
ATTENTION_HEADS = 4


def map_head(channels: int, steps: int, width: int, classes: int) -> nn.Module:
    """Return a head from maps (B, channels, H, W) to logits (B, classes).

    Each of ``steps`` blocks halves the grid; all but the last double the channels, the last returns ``width``. Without
    blocks, a 1x1 convolution does. A linear layer reads the mean over positions.
    """
    widths = [channels * 2**i for i in range(steps)] + [width]
    blocks = [separable_block(*pair) for pair in pairwise(widths)] or [nn.Conv2d(channels, width, 1)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)).apply(initialise)


def separable_block(channels_in: int, channels_out: int) -> nn.Module:
    """Return two separable convolutions with batch norm and ReLU; the first halves the grid."""
    return nn.Sequential(*separable(channels_in, channels_in, 2), *separable(channels_in, channels_out, 1))


def separable(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
    """Return a 3x3 convolution of each channel by itself, a 1x1 convolution, a batch norm and a ReLU."""
    depthwise = nn.Conv2d(channels_in, channels_in, 3, stride, padding=1, groups=channels_in, bias=False)
    pointwise = nn.Conv2d(channels_in, channels_out, 1, bias=False)
    return [depthwise, pointwise, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)]


class TokenHead(nn.Module):
    """Head from tokens, given as a map (B, channels, H, W), to logits (B, classes).

    Blocks of 2x2 tokens are merged as long as each side keeps 7; without mergers, a 1x1 convolution changes the width
    if it has to. ``depth`` transformer blocks of ``width`` follow. A linear layer reads the mean of the tokens.
    """

    def __init__(self, channels: int, size: tuple[int, int], depth: int, width: int, classes: int):
        super().__init__()
        mergers = max(int(math.log2(min(size) / SMALLEST_MERGED_GRID)), 0)
        self.merge = nn.Sequential()
        for i in range(mergers):
            has_activation = i == 0 or i < mergers - 1
            self.merge.append(TokenMerger(width if i else channels, width, has_activation))
        if not mergers and channels != width:
            self.merge.append(nn.Conv2d(channels, width, 1))
        self.blocks = nn.Sequential(*(TransformerBlock(width) for _ in range(depth)))
        self.classify = nn.Linear(width, classes)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.merge(x).flatten(2).transpose(1, 2)  # (B, N, C)
        logits: Tensor = self.classify(self.blocks(tokens).mean(1))
        return logits


class TokenMerger(nn.Module):
    """A linear layer on blocks of 2x2 tokens, (B, C_in, H, W) -> (B, C_out, H / 2, W / 2); odd sides get zeros."""

    def __init__(self, channels_in: int, channels_out: int, has_activation: bool):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels_in)
        self.reduce = nn.Linear(4 * channels_in, channels_out, bias=False)
        self.activate = nn.GELU() if has_activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        blocks = F.pixel_unshuffle(padded, 2).permute(0, 2, 3, 1)
        merged: Tensor = self.activate(self.reduce(self.norm(blocks)))
        return merged.permute(0, 3, 1, 2)


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP of four times the width, each with a shortcut, for tokens (B, N, C)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend = Attention(width, math.gcd(width, ATTENTION_HEADS))
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x


class Attention(nn.Module):
    """Self-attention of tokens (B, N, C), with matrix products whose gradients have one order of summation."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.project = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        # (B, heads, N, C / heads)
        q, k, v = (y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, 2))
        weights = (q * q.shape[3] ** -0.5 @ k.transpose(2, 3)).softmax(3)
        attended: Tensor = self.project((weights @ v).transpose(1, 2).flatten(2))
        return attended


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """Draw a layer's weights: convolutions after He with fan-out, linear layers of standard deviation 0.02."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

"""Layouts of what modules return, and its reading as a map (B, C, H, W)."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from torch import Tensor

MOST_EXTRA_TOKENS = 16  # a class token, registers


@dataclass(frozen=True)
class Layout:
    """The arrangement of a map in what a module returns."""

    kind: Literal["channels_first", "channels_last", "tokens", "class_token"]
    extra: int = 0  # tokens before those of the patches: the class token, DeiT's distillation token, registers

    def read(self, x: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return the map (B, C, H, W) of ``x``, a view, for images of a height and a width.

        Tokens (B, N, C) are taken row by row. A class token becomes a map of one position.
        """
        if self.kind == "channels_first":
            return x
        if self.kind == "channels_last":
            return x.permute(0, 3, 1, 2)
        if self.kind == "class_token":
            return x[:, 0, :, None, None]
        patches = x[:, self.extra :].transpose(1, 2)
        return patches.unflatten(2, grid_of_area(patches.shape[2], image_size))


def is_grid(size: tuple[int, int], image_size: tuple[int, int]) -> bool:
    """Return whether a map of this size has the image's proportions, up to rounding."""
    (h, w), (height, width) = size, image_size
    return h == w if height == width else abs(h * width - w * height) <= max(height, width)


@cache
def grid_of_area(area: int, image_size: tuple[int, int]) -> tuple[int, int]:
    """Return the (H, W) of an area whose proportions are nearest to the image's; (0, 0) if it has none."""
    height, width = image_size
    sizes = [(h, area // h) for h in range(1, area + 1) if area % h == 0]
    fitting = [size for size in sizes if is_grid(size, image_size)]
    return min(fitting, key=lambda size: abs(size[0] * width - size[1] * height), default=(0, 0))


def token_layout(count: int, declared: int | None, image_size: tuple[int, int], areas: Iterable[int]) -> Layout | None:
    """Return the layout of tokens (B, ``count``, C); None if they are no grid of patches.

    ``declared``: how many tokens the network says that it puts before them; its later layers may have none of them.
    ``areas``: those of the network's maps. Without any, every grid will do.
    """
    known = set(areas)
    few = list(dict.fromkeys((declared or 0, 0, 1, 2)))
    for extra in (*few, *range(3, MOST_EXTRA_TOKENS + 1)):
        area = count - extra
        if area in known and (extra in few or area > extra):
            return Layout("tokens", extra)
    for extra in few:
        area = count - extra
        if area > 0 and (not known or area < max(known)) and grid_of_area(area, image_size) != (0, 0):
            return Layout("tokens", extra)
    return None

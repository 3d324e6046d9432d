"""Augmentation of pixels: which operations an image gets, and their application to a batch."""

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from harness import rng
from harness.data.augment import geometry, operations
from harness.data.augment.levels import Layer, Row, list_layers
from harness.errors import UserError

_FIXED = ("brightness", "posterize", "solarize", "solarize_add", "invert")
_CHANCES = 1 << 24
_AT_ONCE = 1 << 20  # bytes of pixels that are augmented together on a CPU, so that they stay in its cache


class Arguments:
    """The arguments of all rows of a layer, as tensors on a device."""

    def __init__(self, layer: Layer, height: int, width: int, interpolation: str, device: torch.device):
        self.groups, self.per_group = len(layer.groups), len(layer.groups[0])
        rows = [row for group in layer.groups for row in group]
        rows.append(Row("identity", 0.0))  # the last row: what is drawn and not applied
        self.rows, self._size, self._interpolation, self._device = rows, (height, width), interpolation, device
        self.chances = torch.tensor([round(row.probability * _CHANCES) for row in rows], device=device)
        self.factor = torch.tensor([row.argument for row in rows], dtype=torch.float32, device=device)
        self.kinds = {row.kind for row in rows}

        self._is_kind: dict[tuple[str, ...], Tensor] = {}

    def is_kind(self, kinds: tuple[str, ...]) -> Tensor:
        """Return which rows are of these kinds, (rows,) bool."""
        if kinds not in self._is_kind:
            self._is_kind[kinds] = torch.tensor([row.kind in kinds for row in self.rows], device=self._device)
        return self._is_kind[kinds]

    @cached_property
    def maps(self) -> Tensor:
        """The affine maps of the geometric rows, (rows, 6); of the others, nothing moves."""
        still = geometry.affine_map("translate_x", 0.0, *self._size)
        maps = [
            geometry.affine_map(row.kind, row.argument, *self._size) if row.kind in geometry.KINDS else still
            for row in self.rows
        ]
        return torch.tensor([geometry.in_units(one, self._interpolation) for one in maps], device=self._device)

    @cached_property
    def tables(self) -> Tensor:
        """The tables of rows that do not depend on what an image shows, (rows, 256); of the others, no change."""
        return torch.stack([operations.fixed_table(row.kind, row.argument) for row in self.rows]).to(self._device)


Operation = Callable[[Tensor, Tensor], Tensor]  # pixels (B, H, W, C) and each image's row (B,) -> pixels


class PixelAugmentation:
    """An augmentation policy for batches of pixels: a pure function of (seed, epoch, index, stream)."""

    def __init__(self, augment: dict[str, Any], *, dense: bool | None = None):
        """Take a policy in its canonical form (harness/spec/augmentation.py).

        ``dense``: apply each operation to all images and choose afterwards; the default on a GPU, which would have to
        be waited for to know which image has which. Both ways give the same bits.
        """
        self._augment, self._dense = augment, dense
        ((_, keys),) = augment.items()
        self._interpolation, self._fill = keys["interpolation"], keys["fill"]
        self._arguments = lru_cache(maxsize=16)(self._list_arguments)

    def __call__(self, pixels: Tensor, seed: int, epoch: int, indices: Tensor, stream: str) -> Tensor:
        """Return augmented pixels, (B, C, H, W) uint8, channels last in memory.

        Raises:
            UserError: the fill colour has another number of channels than the images.
        """
        images = pixels.permute(0, 2, 3, 1).contiguous()
        at_once = max(1, _AT_ONCE // max(1, images[:1].numel())) if images.device.type == "cpu" else max(1, len(images))
        drawn = self.draw(images.shape[1], images.shape[2], seed, epoch, indices, stream)
        parts = []
        for first in range(0, len(images), at_once):
            part = images[first : first + at_once]
            for arguments, rows in drawn:
                part = self._step(part, arguments, rows[first : first + at_once])
            parts.append(part)
        return (torch.cat(parts) if parts else images).permute(0, 3, 1, 2)

    def draw(
        self, height: int, width: int, seed: int, epoch: int, indices: Tensor, stream: str
    ) -> list[tuple[Arguments, Tensor]]:
        """Return the arguments of each step, and which row of them each image has, (B,)."""
        drawn = []
        for step, (layer, arguments) in enumerate(self._arguments(height, width, indices.device)):
            group = rng.random_integers(
                seed, epoch, f"{stream} augment {layer.group_stream}", indices, arguments.groups
            )
            bits = rng.random_bits(seed, epoch, f"{stream} augment {step}", indices)
            rows = group * arguments.per_group + bits % arguments.per_group
            is_applied = (bits >> 24) % _CHANCES < arguments.chances[rows]
            drawn.append((arguments, torch.where(is_applied, rows, arguments.groups * arguments.per_group)))
        return drawn

    def _list_arguments(self, height: int, width: int, device: torch.device) -> list[tuple[Layer, Arguments]]:
        layers = list_layers(self._augment, height, width)
        arguments: dict[tuple[tuple[Row, ...], ...], Arguments] = {}
        for layer in layers:
            if layer.groups not in arguments:
                arguments[layer.groups] = Arguments(layer, height, width, self._interpolation, device)
        return [(layer, arguments[layer.groups]) for layer in layers]

    def _step(self, images: Tensor, arguments: Arguments, rows: Tensor) -> Tensor:
        dense = images.device.type != "cpu" if self._dense is None else self._dense
        fill = self._fill_of(images)

        def move(x: Tensor, row: Tensor) -> Tensor:
            return geometry.resample(x, arguments.maps[row], fill, self._interpolation)

        steps: tuple[tuple[tuple[str, ...], Operation], ...] = (
            (geometry.KINDS, move),
            (_FIXED, lambda x, row: operations.look_up(x, arguments.tables[row])),
            (("contrast",), lambda x, row: operations.contrast(x, arguments.factor[row])),
            (("color",), lambda x, row: operations.color(x, arguments.factor[row])),
            (("sharpness",), lambda x, row: operations.sharpness(x, arguments.factor[row])),
            (("autocontrast",), lambda x, row: operations.autocontrast(x)),
            (("equalize",), lambda x, row: operations.equalize(x)),
        )
        if not dense:
            return _by_group(images, rows, [(arguments.is_kind(kinds), operate) for kinds, operate in steps])
        result = images
        for kinds, operate in steps:
            if arguments.kinds.intersection(kinds):
                chosen = arguments.is_kind(kinds)[rows]
                result = torch.where(chosen[:, None, None, None], operate(images, rows), result)
        return result

    def _fill_of(self, images: Tensor) -> Tensor:
        channels = images.shape[3]
        fill = self._fill if isinstance(self._fill, list | tuple) else [self._fill] * channels
        if len(fill) != channels:
            raise UserError(f"augment: fill has {len(fill)} numbers, the images have {channels} channels")
        return torch.tensor(fill, dtype=torch.uint8, device=images.device)


def _by_group(images: Tensor, rows: Tensor, operations: list[tuple[Tensor, Operation]]) -> Tensor:
    """Apply each operation to the images that it is drawn for. The groups stand one after another until the end."""
    places, parts = [], []
    is_left = torch.ones(len(images), dtype=torch.bool)
    for is_kind, operate in operations:
        chosen = is_kind[rows]
        is_left &= ~chosen
        if len(place := chosen.nonzero()[:, 0]):
            places.append(place)
            parts.append(operate(images.index_select(0, place), rows.index_select(0, place)))
    place = is_left.nonzero()[:, 0]
    order = torch.cat([*places, place]).argsort()
    return torch.cat([*parts, images.index_select(0, place)]).index_select(0, order)

"""Augmentation of pixels: which operations an image gets, and their application to a batch."""

import importlib.util
from collections.abc import Callable
from functools import cache, cached_property, lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness import rng
from harness.data.augment import geometry, operations
from harness.data.augment.levels import Layer, Row, list_layers
from harness.errors import UserError
from harness.phrases import plural

_FIXED = ("brightness", "posterize", "solarize", "solarize_add", "invert")
_CHANCES = 1 << 24
_AT_ONCE = 1 << 20  # bytes of pixels that are augmented together on a CPU, so that they stay in its cache
_FEW = 1 << 26  # bytes of pixels: compiling is not worth it for less


class Arguments:
    """The arguments of all rows of a layer, as tensors on a device."""

    def __init__(self, layer: Layer, height: int, width: int, interpolation: str, device: torch.device):
        self.groups, self.per_group = len(layer.groups), len(layer.groups[0])
        rows = [row for group in layer.groups for row in group]
        rows.append(Row("identity", 0.0))  # the last row: what is drawn and not applied
        self.rows, self._size, self._interpolation, self._device = rows, (height, width), interpolation, device
        self.chances = torch.tensor([round(row.probability * _CHANCES) for row in rows], device=device)
        self.factor = torch.tensor([row.argument for row in rows], dtype=torch.float32, device=device)
        self.kind_of = [row.kind for row in rows]
        self.kinds = set(self.kind_of)

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
        changes = [(row.kind, row.argument) if row.kind in _FIXED else ("identity", 0.0) for row in self.rows]
        tables = {change: operations.fixed_table(*change) for change in set(changes)}  # few of them differ
        return torch.stack([tables[change] for change in changes]).to(self._device)


Operation = Callable[[Tensor, Tensor], Tensor]  # pixels (B, H, W, C) and each image's row (B,) -> pixels
Steps = tuple[tuple[tuple[str, ...], Operation], ...]


class PixelAugmentation:
    """An augmentation policy for batches of pixels: a pure function of (seed, epoch, index, stream)."""

    def __init__(self, augment: dict[str, Any], *, dense: bool | None = None, compile_after: int = _FEW):
        """Take a policy in its canonical form (harness/spec/augmentation.py). All ways give the same bits.

        Args:
            augment: the policy.
            dense: apply each operation to all images and choose afterwards; the default on a GPU, which would have to
                be waited for to know which image has which.
            compile_after: bytes of pixels after which a CPU uses the compiled operations, where numba is installed.
        """
        self._augment, self._dense = augment, dense
        self._compile_after, self._seen = compile_after, 0
        ((_, keys),) = augment.items()
        self._interpolation, self._fill = keys["interpolation"], keys["fill"]
        self._arguments = lru_cache(maxsize=16)(self._list_arguments)
        self._fill_colour = lru_cache(maxsize=16)(self._read_fill)

    def __call__(self, pixels: Tensor, seed: int, epoch: int, indices: Tensor, stream: str) -> Tensor:
        """Return augmented pixels, (B, C, H, W) uint8, channels last in memory.

        Raises:
            UserError: the fill colour has another number of channels than the images.
        """
        images = pixels.permute(0, 2, 3, 1).contiguous()
        at_once = max(1, _AT_ONCE // max(1, images[:1].numel())) if images.device.type == "cpu" else max(1, len(images))
        drawn = self.draw(images.shape[1], images.shape[2], seed, epoch, indices, stream)
        parts = []
        self._seen += images.numel()
        compiled = self._compiled(images.device)
        for first in range(0, len(images), at_once):
            part = images[first : first + at_once]
            for arguments, rows in drawn:
                mine = rows[first : first + at_once]
                part = self._run(compiled, part, arguments, mine) if compiled else self._step(part, arguments, mine)
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

    def _read_fill(self, channels: int, device: torch.device) -> Tensor:
        fill = self._fill if isinstance(self._fill, list | tuple) else [self._fill] * channels
        if len(fill) != channels:
            numbers, found = plural(len(fill), "number"), plural(channels, "channel")
            raise UserError(f"augment: fill has {numbers}, the images have {found}")
        return torch.tensor(fill, dtype=torch.uint8, device=device)

    def _compiled(self, device: torch.device) -> ModuleType | None:
        is_worth_it = device.type == "cpu" and self._dense is None and self._seen >= self._compile_after
        return _compiled_operations() if is_worth_it else None

    def _run(self, compiled: ModuleType, images: Tensor, arguments: Arguments, rows: Tensor) -> Tensor:
        """Apply a step by the compiled operations."""
        code_of = {**dict.fromkeys(geometry.KINDS, compiled.MOVES), **compiled.CODES}
        codes = np.array([code_of.get(arguments.kind_of[row], 0) for row in rows.tolist()])
        maps, tables, factors = (
            part.index_select(0, rows).numpy() for part in (arguments.maps, arguments.tables, arguments.factor)
        )
        taps = {"nearest": 1, "bilinear": 2, "bicubic": 4}[self._interpolation]
        result = torch.empty_like(images)
        fill = self._fill_colour(images.shape[3], images.device).numpy()
        compiled.augment(images.numpy(), codes, maps, tables, factors, fill, taps, result.numpy())
        return result

    def _step(self, images: Tensor, arguments: Arguments, rows: Tensor) -> Tensor:
        dense = images.device.type != "cpu" if self._dense is None else self._dense
        fill = self._fill_colour(images.shape[3], images.device)

        def move(x: Tensor, row: Tensor) -> Tensor:
            return geometry.resample(x, arguments.maps[row], fill, self._interpolation)

        steps: Steps = (
            (geometry.KINDS, move),
            (_FIXED, lambda x, row: operations.look_up(x, arguments.tables[row])),
            (("contrast",), lambda x, row: operations.contrast(x, arguments.factor[row])),
            (("color",), lambda x, row: operations.color(x, arguments.factor[row])),
            (("sharpness",), lambda x, row: operations.sharpness(x, arguments.factor[row])),
            (("autocontrast",), lambda x, row: operations.autocontrast(x)),
            (("equalize",), lambda x, row: operations.equalize(x)),
        )
        if not dense:
            return _by_group(images, rows, arguments.kind_of, steps)
        result = images
        for kinds, operate in steps:
            if arguments.kinds.intersection(kinds):
                chosen = arguments.is_kind(kinds)[rows]
                result = torch.where(chosen[:, None, None, None], operate(images, rows), result)
        return result


def _by_group(images: Tensor, rows: Tensor, kind_of: list[str], steps: Steps) -> Tensor:
    """Apply each operation to the images that it is drawn for. The groups stand one after another until the end."""
    places: dict[int, list[int]] = {i: [] for i in range(len(steps) + 1)}
    step_of = {kind: i for i, (kinds, _) in enumerate(steps) for kind in kinds}
    for place, row in enumerate(rows.tolist()):
        places[step_of.get(kind_of[row], len(steps))].append(place)  # the last are those that stay
    parts = []
    for i, members in places.items():
        if members:
            chosen = torch.tensor(members)
            part = images.index_select(0, chosen)
            parts.append(steps[i][1](part, rows.index_select(0, chosen)) if i < len(steps) else part)
    order = torch.tensor([place for members in places.values() for place in members]).argsort()
    return torch.cat(parts).index_select(0, order)


@cache
def _compiled_operations() -> ModuleType | None:
    """Return the compiled operations; None where numba is not installed."""
    if importlib.util.find_spec("numba") is None:
        return None
    from harness.data.augment import compiled

    return compiled

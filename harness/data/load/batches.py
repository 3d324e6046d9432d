"""The batches of a pass over a training set: which images each holds, in which copies, and how they are mixed."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness import rng
from harness.data.load.loader import Extras, LoadedBatch
from harness.data.load.mixing import Mix
from harness.spec.repeated_augmentation import images_per_pass

# Side of the images that models see, or ((epoch, side), ...): from which epoch on, counted from 0; None: their own
ImageSize = int | tuple[tuple[int, int], ...] | None


def size_in_epoch(sizes: ImageSize, epoch: int) -> int | None:
    """Return the side of the images in an epoch; epochs before the first are as that one."""
    if sizes is None or isinstance(sizes, int):
        return sizes
    return next((size for begins, size in reversed(sizes) if begins <= epoch), sizes[0][1])


def largest_size(sizes: ImageSize) -> int | None:
    """Return the side of the images at the end of training."""
    return sizes if sizes is None or isinstance(sizes, int) else sizes[-1][1]


@dataclass(frozen=True)
class Copies:
    """The copies that the rows of a batch are: of three, 0, 1, 2, 0, 1, 2, ... along a pass."""

    first: int  # of the batch's first row
    repeats: int

    def parts(self, rows: slice) -> Iterator[tuple[int, slice]]:
        """Yield each copy's number with those of the ``rows`` that hold it."""
        for copy in range(self.repeats):
            first = rows.start + (copy - self.first - rows.start) % self.repeats
            if first < rows.stop or copy == 0 and rows.start == rows.stop:
                yield copy, slice(first, rows.stop, self.repeats)


class EpochOrder:
    """The images of an epoch's batches.

    With repeated augmentation (arXiv:1901.09335) the copies of an image follow each other, and a pass ends when as
    many images as the training set has were shown, see ``images_per_pass``. In DeiT's sampler the ranks take them in
    turn; here a batch has the same images on any number of ranks, of which each takes its rows.
    """

    def __init__(self, seed: int, epoch: int, size: int, repeats: int, batch_size: int, device: torch.device):
        order = rng.random_permutation(seed, epoch, size, device)
        if repeats > 1:
            shown = images_per_pass(size, repeats)
            order = order[: -(-shown // repeats)].repeat_interleave(repeats)[:shown]
        self._batches, self._batch_size, self._repeats = order.split(batch_size), batch_size, repeats

    def __len__(self) -> int:
        return len(self._batches)

    def batch(self, step: int) -> tuple[Tensor, Copies]:
        """Return the positions in the training set (B,) of a step's images, and which copies they are."""
        return self._batches[step], Copies(step * self._batch_size % self._repeats, self._repeats)


def whole_rows(rows: slice, count: int) -> slice:
    """Return a process's rows of a batch of ``count`` with both ends stated."""
    start, stop, _ = rows.indices(count)
    return slice(start, stop)


def joined(parts: Iterable[tuple[slice, Tensor]], rows: slice) -> Tensor:
    """Return the images of ``rows`` from those of parts of them; the parts are slices of the batch."""
    parts = list(parts)
    if len(parts) == 1:
        return parts[0][1]
    of_one = parts[0][1]
    images = torch.empty(
        (rows.stop - rows.start, *of_one.shape[1:]),
        dtype=of_one.dtype, device=of_one.device, memory_format=torch.channels_last,
    )  # fmt: skip
    for part, values in parts:
        images[part.start - rows.start :: part.step] = values
    return images


def loaded_batch(
    images: Callable[[str, slice], Tensor],
    views: Iterable[str],
    mine: slice,
    targets: Tensor,
    indices: Tensor,
    mix: Mix | None,
) -> LoadedBatch:
    """Return a batch, of which a process has the rows ``mine``; ``mix``: how it is mixed, if the recipe mixes images.

    ``images(view, rows)`` makes unmixed images. Partners may be in other processes' rows; then they are made here too.
    All views are mixed alike, so that targets hold for each.
    """
    count = len(indices)

    def shown(view: str) -> Tensor:
        own = images(view, mine)
        if mix is None or mix.share == 1:
            return own
        is_whole = mine == slice(0, count)
        partners = own if is_whole else images(view, slice(count - mine.stop, count - mine.start))
        return mix.images(own, partners.flip(0))

    further = {view: shown(view) for view in views}
    if mix is not None:
        return shown(""), mix.larger_share(targets), indices, Extras(mix.probs(targets), further)
    return (shown(""), targets, indices, Extras(None, further)) if further else (shown(""), targets, indices)

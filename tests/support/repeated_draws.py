"""Networks whose large tensors begin with repeated random numbers: drawing them all is most of what building takes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

BLOCK = 65_521  # numbers that are drawn; a prime, so that no two filters of a layer are alike


@contextmanager
def repeated_draws() -> Iterator[None]:
    """Draw only the first ``BLOCK`` numbers of a tensor that is initialised, and repeat them."""
    names = ("uniform_", "normal_")
    repeated = {name: _repeats(getattr(Tensor, name)) for name in names}
    with mock.patch.multiple(Tensor, **repeated):
        yield


def _repeats(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def drawn(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        count = tensor.numel()
        if count <= BLOCK or tensor.is_meta or not tensor.is_contiguous():
            return draw(tensor, *args, **kwargs)
        with torch.no_grad():
            flat = tensor.detach().view(-1)
            draw(flat[:BLOCK], *args, **kwargs)
            done = BLOCK
            while done < count:
                more = min(done, count - done)
                flat[done : done + more] = flat[:more]
                done += more
        return tensor

    return drawn

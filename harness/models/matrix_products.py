"""Recognition of the tensors that a network multiplies as matrices, such as attention's."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "bmm", "baddbmm", "einsum", "scaled_dot_product_attention"}
SWAPS = {"transpose", "permute", "swapaxes", "swapdims"}
RESHAPES = {"flatten", "reshape", "view"}


class MatrixProducts(TorchFunctionMode):
    """A record of a forward pass: which tensors are factors or products of matrices.

    Queries, keys, values and attention have four axes as maps do, (B, heads, N, C) or (B, heads, N, N). They differ
    by what is done with them: their last two axes are multiplied as matrices, before or after operations that keep
    these two (scales, biases, a softmax, dropout, mixing of heads).
    A map is flattened first, which changes its last two axes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.swaps: dict[int, Tensor] = {}  # id of (B, N, C) with its last two axes swapped -> the tensor before
        self.flattened: set[int] = set()  # ids of (B, C, N) that were (B, C, H, W)
        self._kin: dict[int, int] = {}  # id -> id of one with the same last two axes
        self._factors: list[int] = []
        self._alive: list[object] = []  # so that no id is used twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        results = list(_tensors([result]))
        if not results:
            return result
        operands = list(_tensors([*args, *(kwargs or {}).values()]))
        self._alive += [*operands, *results]
        name = getattr(func, "__name__", "")
        if name in PRODUCTS:
            factors = [x for x in operands if x.ndim > 2 and not isinstance(x, nn.Parameter)]
            if len(factors) > 1:
                self._factors += map(id, [*factors, *results])
        elif name != "linear":
            self._note(operands, results)
            if name in SWAPS and operands[0].ndim == 3 and results[0].shape == operands[0].mT.shape:
                self.swaps[id(results[0])] = operands[0]
            if name in RESHAPES and operands[0].ndim == 4 and results[0].shape[:-1] == operands[0].shape[:2]:
                self.flattened.add(id(results[0]))
        return result

    def factors(self, maps: Iterable[int]) -> set[int]:
        """Return the ids of all factors and products, and of all that have become one by keeping the last two axes.

        ``maps``: ids of maps, and so is all that keeps their last two axes, though some CNNs multiply it.
        """
        roots = {self._root(tensor) for tensor in self._factors} - {self._root(tensor) for tensor in maps}
        return {tensor for tensor in {*self._kin, *self._factors} if self._root(tensor) in roots}

    def _note(self, operands: list[Tensor], results: list[Tensor]) -> None:
        for result in results:
            for operand in operands:
                if result is not operand and _same_matrices(operand, result):
                    self._kin[self._root(id(operand))] = self._root(id(result))

    def _root(self, tensor: int) -> int:
        while (kin := self._kin.setdefault(tensor, tensor)) != tensor:
            self._kin[tensor] = self._kin[kin]  # a shorter way for the next
            tensor = kin
        return tensor


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple) and not isinstance(value, torch.Size):
            yield from _tensors(value)


def _same_matrices(a: Tensor, b: Tensor) -> bool:
    if a.ndim < 2 or b.ndim < 2 or sorted(a.shape[-2:]) != sorted(b.shape[-2:]):
        return False
    return a.shape[-2:] != (1, 1) or a.numel() == b.numel()  # all pooled maps are of size 1x1

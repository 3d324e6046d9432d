"""The native engine: torch's own backward pass, SGD and all-reduce."""

import torch
from torch import Tensor, nn

from harness.spec.schema import Recipe
from harness.training.distributed.ranks import Ranks
from harness.training.engines.base import Parameters
from harness.training.engines.sgd import SGD


class NativeEngine:
    """An engine that needs nothing but torch."""

    def __init__(self, parameters: Parameters, recipe: Recipe, ranks: Ranks):
        self._parameters, self._ranks, self._clip_norm = parameters, ranks, recipe.clip_norm
        self._sgd = SGD(parameters, recipe)

    def backward(self, loss: Tensor, last: bool) -> None:
        loss.backward()

    def step(self, lr: float) -> None:
        self._ranks.all_reduce_sum(p.grad for p in self._parameters if p.grad is not None)
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        self._sgd.step(lr)

    def momenta(self) -> dict[int, Tensor]:
        return dict(self._sgd.momenta)

    def restore(self, momenta: dict[int, Tensor]) -> None:
        for i, momentum in momenta.items():  # with the parameter's layout in memory
            self._sgd.momenta[i] = torch.empty_like(self._parameters[i]).copy_(momentum)

    def restart(self) -> None:
        self._sgd.momenta.clear()

"""The native engine: torch's own backward pass, SGD and all-reduce."""

import torch
from torch import Tensor, nn

from harness.spec.schema import Recipe
from harness.training.distributed.ranks import Ranks
from harness.training.engines.base import Parameters


class NativeEngine:
    """An engine that needs nothing but torch."""

    def __init__(self, parameters: Parameters, recipe: Recipe, ranks: Ranks):
        self._parameters, self._ranks, self._clip_norm = parameters, ranks, recipe.clip_norm
        self._sgd = make_sgd(parameters, recipe)

    def backward(self, loss: Tensor, last: bool) -> None:
        loss.backward()

    def step(self, lr: float) -> None:
        self._ranks.all_reduce_sum(p.grad for p in self._parameters if p.grad is not None)
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        set_lr(self._sgd, lr)
        self._sgd.step()
        self._sgd.zero_grad(set_to_none=True)

    def momenta(self) -> dict[int, Tensor]:
        return get_momenta(self._sgd, self._parameters)

    def restore(self, momenta: dict[int, Tensor]) -> None:
        set_momenta(self._sgd, self._parameters, momenta)

    def restart(self) -> None:
        self._sgd.state.clear()


def make_sgd(parameters: Parameters, recipe: Recipe) -> torch.optim.SGD:
    """Make the recipe's optimiser."""
    return torch.optim.SGD(
        parameters,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        fused=True,
    )


def set_lr(optimiser: torch.optim.SGD, lr: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = lr


def get_momenta(optimiser: torch.optim.SGD, parameters: Parameters) -> dict[int, Tensor]:
    """Return the momenta by their parameter's index; the optimiser may have only some of the parameters."""
    momenta = {i: optimiser.state.get(p, {}).get("momentum_buffer") for i, p in enumerate(parameters)}
    return {i: m for i, m in momenta.items() if m is not None}


def set_momenta(optimiser: torch.optim.SGD, parameters: Parameters, momenta: dict[int, Tensor]) -> None:
    for i, momentum in momenta.items():
        p = parameters[i]
        optimiser.state[p]["momentum_buffer"] = torch.empty_like(p).copy_(momentum)
